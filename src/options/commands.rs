//! What the command line asks for beside serving.

use std::path::{Path, PathBuf};

use super::args::{ListArgs, RestoreArgs, RevokeArgs, TokenSubcommand};
use super::{Invocation, durability, rate};
use crate::store::Durability;
use crate::tokens::NewToken;

/// What is to be restored.
#[derive(Debug)]
pub struct Restore {
    /// The export; `None` for stdin.
    pub from: Option<PathBuf>,
    /// The directory to fill.
    pub working_dir: PathBuf,
    /// What the data survives from then on.
    pub durability: Durability,
}

/// What is to be done with tokens.
#[derive(Debug)]
pub enum TokenCommand {
    /// Make one.
    Create(NewToken),
    /// List all of them.
    List,
    /// Remove the one of that name.
    Revoke(String),
}

pub(super) fn restore(args: RestoreArgs) -> Result<Restore, String> {
    let mode = args.durability.as_deref().map(durability);
    Ok(Restore {
        from: Some(args.from).filter(|from| from != Path::new("-")),
        working_dir: args.working_dir,
        durability: mode.unwrap_or(Ok(Durability::Sync))?,
    })
}

pub(super) fn token_command(command: TokenSubcommand) -> Result<Invocation, String> {
    Ok(match command {
        TokenSubcommand::Create(args) => {
            let new = NewToken {
                name: args.name,
                read_only: args.read_only,
                rate_limit: rate(args.rate_limit)?,
            };
            Invocation::Tokens(args.file, TokenCommand::Create(new))
        }
        TokenSubcommand::List(ListArgs { file }) => Invocation::Tokens(file, TokenCommand::List),
        TokenSubcommand::Revoke(RevokeArgs { file, name }) => {
            Invocation::Tokens(file, TokenCommand::Revoke(name))
        }
    })
}

//! The options as they are written and described, for argh. What they may be is checked by [`super::parse`].

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};

/// A small, fast key-value server over HTTP, made of plain threads and channels. Each option can also be an environment variable:
/// THREADKV_PORT, THREADKV_WORKING_DIR and so on.
#[derive(ArgsInfo, FromArgs)]
#[argh(help_triggers("-h", "--help", "help"))]
pub(super) struct Args {
    /// address to listen on (default 127.0.0.1)
    #[argh(option, arg_name = "address")]
    pub(super) host: Option<String>,

    /// port to listen on; 0 takes a free one (default 4000)
    #[argh(option, short = 'p', arg_name = "number")]
    pub(super) port: Option<String>,

    /// directory that keeps the data; without it, data lives in memory only
    #[argh(option, arg_name = "dir")]
    pub(super) working_dir: Option<PathBuf>,

    /// members of etcd, as http://HOST:PORT,... or https://: this is one of several nodes that have the same keys
    #[argh(option, arg_name = "urls")]
    pub(super) cluster: Option<String>,

    /// what the keys in etcd begin with; nodes with the same one have the same keys (default threadkv/)
    #[argh(option, arg_name = "text")]
    pub(super) cluster_prefix: Option<String>,

    /// user of etcd, where it asks for one
    #[argh(option, arg_name = "name")]
    pub(super) cluster_user: Option<String>,

    /// file with that user's password
    #[argh(option, arg_name = "file")]
    pub(super) cluster_password_file: Option<PathBuf>,

    /// certificates in PEM of those who vouch for etcd's, for https:// (default: whom browsers trust)
    #[argh(option, arg_name = "file")]
    pub(super) cluster_ca: Option<PathBuf>,

    /// this node's certificate in PEM, for an etcd that asks for one
    #[argh(option, arg_name = "file")]
    pub(super) cluster_cert: Option<PathBuf>,

    /// the key of that certificate
    #[argh(option, arg_name = "file")]
    pub(super) cluster_key: Option<PathBuf>,

    /// sync, os or none: what an answered write survives (default sync, a power cut)
    #[argh(option, arg_name = "mode")]
    pub(super) durability: Option<String>,

    /// bytes of log after which a snapshot of the data replaces it, at least (default 16777216, with --cluster 67108864)
    #[argh(option, arg_name = "bytes")]
    pub(super) snapshot_after: Option<String>,

    /// threads that answer requests (default: one a core, at least two)
    #[argh(option, arg_name = "number")]
    pub(super) workers: Option<String>,

    /// connections open at once; more wait (default: what the limits of the machine allow)
    #[argh(option, arg_name = "number")]
    pub(super) max_connections: Option<String>,

    /// memory for data and bodies under way, in bytes, KiB, MiB or GiB (default: three quarters of what there is)
    #[argh(option, arg_name = "bytes")]
    pub(super) max_memory: Option<String>,

    /// memory for the latest changes, from which watchers go on, in bytes, KiB, MiB or GiB (default 16MiB)
    #[argh(option, arg_name = "bytes")]
    pub(super) history: Option<String>,

    /// clients that watch at once, at most (default 1000)
    #[argh(option, default = "String::from(\"1000\")", arg_name = "number")]
    pub(super) max_watchers: String,

    /// largest value, in bytes (default 10485760, with --cluster 1048576)
    #[argh(option, arg_name = "bytes")]
    pub(super) max_value_bytes: Option<String>,

    /// items of a bulk request, at most (default 500)
    #[argh(option, default = "String::from(\"500\")", arg_name = "number")]
    pub(super) max_batch: String,

    /// close a connection on which nothing has happened for so long (default 75)
    #[argh(option, default = "String::from(\"75\")", arg_name = "seconds")]
    pub(super) idle_timeout: String,

    /// close a connection whose request line and headers take longer (default 10)
    #[argh(option, default = "String::from(\"10\")", arg_name = "seconds")]
    pub(super) head_timeout: String,

    /// close a connection whose body or answer takes longer (default 300)
    #[argh(option, default = "String::from(\"300\")", arg_name = "seconds")]
    pub(super) transfer_timeout: String,

    /// bytes a second that bodies and answers must make, after 5 seconds; 0 for any (default 1024)
    #[argh(option, default = "String::from(\"1024\")", arg_name = "bytes")]
    pub(super) min_rate: String,

    /// off, error, warn, info, debug or trace (default info), or @FILE: a file that holds one of them, read again after SIGHUP
    #[argh(option, default = "String::from(\"info\")", arg_name = "level")]
    pub(super) log_level: String,

    /// text or json: a JSON object a line (default text)
    #[argh(option, arg_name = "format")]
    pub(super) log_format: Option<String>,

    /// log requests that took longer than so many milliseconds, with where the time went
    #[argh(option, arg_name = "ms")]
    pub(super) slow_log: Option<String>,

    /// file of the tokens that let clients in, on both APIs
    #[argh(option, arg_name = "file")]
    pub(super) auth: Option<PathBuf>,

    /// let everybody in, also from other machines
    #[argh(switch)]
    pub(super) no_auth: bool,

    /// requests a second (N/s) or a minute (N/m) of one token, or without --auth of one address
    #[argh(option, arg_name = "rate")]
    pub(super) rate_limit: Option<String>,

    /// let everybody read /metrics, also without a token
    #[argh(switch)]
    pub(super) metrics_open: bool,

    /// origin of web pages that may use the APIs, or * for any; can be given several times
    #[argh(option, arg_name = "origin")]
    pub(super) cors_origin: Vec<String>,

    /// without --auth: name of this server that clients may ask by; can be given several times
    #[argh(option, arg_name = "name")]
    pub(super) allow_host: Vec<String>,

    /// members of a cluster, as LittleClusters passes them: data is kept in node-PORT under --working-dir, but this is one node
    #[argh(option, arg_name = "list")]
    pub(super) peers: Option<String>,

    /// print the version and exit
    #[argh(switch, short = 'V')]
    pub(super) version: bool,

    #[argh(subcommand)]
    pub(super) command: Option<Subcommand>,
}

#[derive(ArgsInfo, FromArgs)]
#[argh(subcommand)]
pub(super) enum Subcommand {
    Token(TokenArgs),
    Restore(RestoreArgs),
    Health(HealthArgs),
}

/// Makes a store of an export, as GET /api/v1/export gives it, in a directory that has none.
#[derive(ArgsInfo, FromArgs)]
#[argh(help_triggers("-h", "--help", "help"))]
#[argh(subcommand, name = "restore")]
pub(super) struct RestoreArgs {
    /// file with the export; - for stdin
    #[argh(option, arg_name = "file")]
    pub(super) from: PathBuf,

    /// directory to fill, which is empty or does not exist
    #[argh(option, arg_name = "dir")]
    pub(super) working_dir: PathBuf,

    /// sync, os or none: what the restored data survives once this has ended (default sync, a power cut)
    #[argh(option, arg_name = "mode")]
    pub(super) durability: Option<String>,
}

/// Asks a server on this machine whether it is ready: exit status 0 if it is, else 1 and a line on stderr.
#[derive(ArgsInfo, FromArgs)]
#[argh(help_triggers("-h", "--help", "help"))]
#[argh(subcommand, name = "health")]
pub(super) struct HealthArgs {
    /// address that the server listens on (default 127.0.0.1, or THREADKV_HOST)
    #[argh(option, arg_name = "address")]
    pub(super) host: Option<String>,

    /// port that it listens on (default 4000, or THREADKV_PORT)
    #[argh(option, short = 'p', arg_name = "number")]
    pub(super) port: Option<String>,
}

/// Makes, lists and revokes the tokens that let clients in.
#[derive(ArgsInfo, FromArgs)]
#[argh(help_triggers("-h", "--help", "help"))]
#[argh(subcommand, name = "token")]
pub(super) struct TokenArgs {
    #[argh(subcommand)]
    pub(super) command: TokenSubcommand,
}

#[derive(ArgsInfo, FromArgs)]
#[argh(subcommand)]
pub(super) enum TokenSubcommand {
    Create(CreateArgs),
    List(ListArgs),
    Revoke(RevokeArgs),
}

/// Makes a token and prints it, once: it is kept nowhere.
#[derive(ArgsInfo, FromArgs)]
#[argh(help_triggers("-h", "--help", "help"))]
#[argh(subcommand, name = "create")]
pub(super) struct CreateArgs {
    /// file of the tokens; made if there is none
    #[argh(option, arg_name = "file")]
    pub(super) file: PathBuf,

    /// how to call it (default: token-1, token-2 and so on)
    #[argh(option, arg_name = "name")]
    pub(super) name: Option<String>,

    /// let it read only
    #[argh(switch)]
    pub(super) read_only: bool,

    /// requests a second (N/s) or a minute (N/m), whatever the server's own --rate-limit says
    #[argh(option, arg_name = "rate")]
    pub(super) rate_limit: Option<String>,
}

/// Lists names, dates and rights of the tokens, never the tokens themselves.
#[derive(ArgsInfo, FromArgs)]
#[argh(help_triggers("-h", "--help", "help"))]
#[argh(subcommand, name = "list")]
pub(super) struct ListArgs {
    /// file of the tokens
    #[argh(option, arg_name = "file")]
    pub(super) file: PathBuf,
}

/// Removes a token: whoever has it is not let in any more.
#[derive(ArgsInfo, FromArgs)]
#[argh(help_triggers("-h", "--help", "help"))]
#[argh(subcommand, name = "revoke")]
pub(super) struct RevokeArgs {
    /// file of the tokens
    #[argh(option, arg_name = "file")]
    pub(super) file: PathBuf,

    /// its name
    #[argh(option, arg_name = "name")]
    pub(super) name: String,
}

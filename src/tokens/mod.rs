//! Access tokens, and the file that holds them: names, rights and hashes, never the tokens themselves.
//!
//! A token is 256 random bits, so nobody finds one by trying, and a fast hash is enough to keep the file from being of
//! use to whoever gets to read it.

mod file;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use hmac_sha256::Hash;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::rate::Rate;

use file::Locked;

/// What tokens begin with, so that they are known for what they are where they turn up.
const PREFIX: &str = "tkv_";

/// The longest name, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// All tokens in a file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    tokens: Vec<Token>,
}

/// What is known of a token. A right that is misspelt by hand shall not be taken for one that is not there.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// How people call it.
    pub name: String,
    /// SHA-256 of the token.
    #[serde(with = "hex")]
    hash: [u8; 32],
    /// When it was made, as in RFC 3339.
    pub created: String,
    /// Whether it may only read.
    #[serde(default)]
    pub read_only: bool,
    /// How often it may be used, where that is not what holds for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Rate>,
}

impl Token {
    /// What tells it from all others.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }
}

/// What a new token is to be like.
#[derive(Debug, Default)]
pub struct NewToken {
    /// How to call it; without a name it gets the first free one of `token-1`, `token-2` and so on.
    pub name: Option<String>,
    /// Whether it may only read.
    pub read_only: bool,
    /// How often it may be used, where that is not what holds for all.
    pub rate_limit: Option<Rate>,
}

/// Why a file of tokens could not be read or changed. The file is as it was.
#[derive(Debug)]
pub enum TokenError {
    /// The operating system would not do that to the file.
    Io(&'static str, PathBuf, io::Error),
    /// It holds something else, or a part only.
    Malformed(PathBuf, serde_json::Error),
    /// It is no regular file: a directory, if so, or a FIFO, a device.
    NotAFile(PathBuf, bool),
    /// It has more bytes than so many.
    TooLarge(PathBuf, u64),
    /// Its owner and group, or its mode, cannot be given to the file that replaces it.
    Owner(PathBuf, u32, u32, io::Error),
    /// It has so many names (hard links). To replace it would change one of them only.
    Linked(PathBuf, u64),
    /// There is a token of that name already.
    Exists(String),
    /// There is no token of that name.
    Missing(String),
    /// A name that is empty, longer than 64 bytes, or has characters that do not print.
    Name(String),
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenError::Io(what @ "read", path, error)
                if error.kind() == io::ErrorKind::NotFound =>
            {
                write!(
                    f,
                    "cannot {what} {}: {error}; threadkv token create --file makes it",
                    path.display()
                )
            }
            TokenError::Io(what, path, error) => {
                write!(f, "cannot {what} {}: {error}", path.display())
            }
            TokenError::Malformed(path, error) => {
                write!(f, "{} is no file of tokens: {error}", path.display())
            }
            TokenError::NotAFile(path, is_directory) => {
                let what = if *is_directory {
                    "a directory"
                } else {
                    "no regular file"
                };
                write!(f, "{} is {what}; expected a file of tokens", path.display())
            }
            TokenError::TooLarge(path, limit) => write!(
                f,
                "{} has more than {limit} bytes; expected a file of tokens",
                path.display()
            ),
            TokenError::Owner(path, owner, group, error) => write!(
                f,
                "cannot keep the owner and group of {} ({owner}:{group}): {error}; nothing was changed, do this as that user or as root",
                path.display()
            ),
            TokenError::Linked(path, names) => write!(
                f,
                "{} has {names} names (hard links), of which only one would change; nothing was changed, remove the others first",
                path.display()
            ),
            TokenError::Exists(name) => {
                write!(f, "there is a token named {name:?}; choose another --name")
            }
            TokenError::Missing(name) => write!(
                f,
                "there is no token named {name:?}; threadkv token list shows those there are"
            ),
            TokenError::Name(name) => write!(
                f,
                "--name {name:?}: expected 1 to {MAX_NAME_BYTES} bytes of characters that print"
            ),
        }
    }
}

impl std::error::Error for TokenError {}

impl Tokens {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Tokens, TokenError> {
        let text = file::read(path)?;
        serde_json::from_slice(&text).map_err(|error| TokenError::Malformed(path.into(), error))
    }

    /// The tokens, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Token> {
        self.tokens.iter()
    }

    /// The token that is this text. Takes the same time whatever the text is, for as many tokens as there are.
    pub fn find(&self, text: &[u8]) -> Option<&Token> {
        let hash = Hash::hash(text);
        let mut found = 0_u64; // counted from 1
        for (number, token) in (1..).zip(&self.tokens) {
            let same: Choice = token.hash.ct_eq(&hash);
            found.conditional_assign(&number, same);
        }
        self.tokens.get((found as usize).checked_sub(1)?)
    }
}

/// Makes a token, and the file with it if there is none. Returns the token, which is nowhere else.
pub fn create(path: &Path, new: NewToken) -> Result<String, TokenError> {
    let file = Locked::open(path)?;
    let mut tokens = match Tokens::read(path) {
        Err(TokenError::Io(_, _, error)) if error.kind() == io::ErrorKind::NotFound => {
            Tokens::default()
        }
        read => read?,
    };
    let taken = |name: &str| tokens.iter().any(|token| token.name == name);
    let name = match new.name {
        Some(name) if name.is_empty() || name.len() > MAX_NAME_BYTES || !prints(&name) => {
            return Err(TokenError::Name(name));
        }
        Some(name) if taken(&name) => return Err(TokenError::Exists(name)),
        Some(name) => name,
        None => {
            let mut names = (1..).map(|n: u32| format!("token-{n}"));
            names.find(|name| !taken(name)).unwrap_or_default()
        }
    };
    let mut secret = [0; 32];
    // So few bytes come whole.
    getrandom(&mut secret, GetRandomFlags::empty())
        .map_err(|error| TokenError::Io("make a token for", path.into(), error.into()))?;
    let token = format!("{PREFIX}{}", hex::encode(&secret));
    let now = OffsetDateTime::now_utc();
    let now = now.replace_nanosecond(0).unwrap_or(now);
    tokens.tokens.push(Token {
        name,
        hash: Hash::hash(token.as_bytes()),
        created: now.format(&Rfc3339).unwrap_or_default(), // fails beyond the year 9999
        read_only: new.read_only,
        rate_limit: new.rate_limit,
    });
    file.replace(&written(&tokens))?;
    Ok(token)
}

/// Removes a token. Whoever has it is not let in any more.
pub fn revoke(path: &Path, name: &str) -> Result<(), TokenError> {
    let file = Locked::open(path)?;
    let mut tokens = Tokens::read(path)?;
    let before = tokens.tokens.len();
    tokens.tokens.retain(|token| token.name != name);
    if tokens.tokens.len() == before {
        return Err(TokenError::Missing(name.into()));
    }
    file.replace(&written(&tokens))
}

fn prints(name: &str) -> bool {
    !name.chars().any(char::is_control)
}

/// The bytes of a file that holds these tokens.
fn written(tokens: &Tokens) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(tokens).unwrap_or_default(); // fails for keys that are no strings only
    bytes.push(b'\n');
    bytes
}

/// Bytes as text in the file.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn encode(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn serialize<S: Serializer>(hash: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&encode(hash))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        let wrong = || de::Error::custom("expected a hash of 64 hexadecimal digits");
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut hash = [0; 32];
        for (n, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).map_err(|_| wrong())?;
        }
        Ok(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(names: &[&str]) -> Tokens {
        let token = |name: &&str| Token {
            name: (*name).to_owned(),
            hash: Hash::hash(format!("secret of {name}").as_bytes()),
            created: String::new(),
            read_only: false,
            rate_limit: None,
        };
        Tokens {
            tokens: names.iter().map(token).collect(),
        }
    }

    #[test]
    fn a_token_is_found_by_its_text_and_by_nothing_else() {
        let tokens = tokens(&["a", "b", "c"]);
        for name in ["a", "b", "c"] {
            let found = tokens.find(format!("secret of {name}").as_bytes());
            assert_eq!(found.unwrap().name, name);
        }
        for text in ["", "secret of d", "secret of a ", "Secret of a"] {
            assert!(tokens.find(text.as_bytes()).is_none(), "{text}");
        }
        assert!(Tokens::default().find(b"").is_none());
    }

    #[test]
    fn what_is_written_is_read_again_and_other_things_are_refused() {
        let written = serde_json::to_string(&tokens(&["a"])).unwrap();
        let read: Tokens = serde_json::from_str(&written).unwrap();
        assert!(read.find(b"secret of a").is_some());
        for other in [
            "",
            "[]",
            r#"{"tokens":[{"name":"a","hash":"zz","created":""}]}"#,
            &written.replace("read_only", "readonly"),
            &written.replace(r#""read_only""#, r#""rate_limit":"5/h","read_only""#),
            &written.replacen('{', r#"{"version":2,"#, 1),
        ] {
            assert!(serde_json::from_str::<Tokens>(other).is_err(), "{other}");
        }
    }
}

//! Keys: 1 to 1024 bytes of ASCII letters, digits and `:` `_` `.` `-` (contract, "One keyspace, two APIs").

use std::fmt;
use std::sync::Arc;

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;

/// A key that follows the rules. Case counts. Cloning one is cheap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(Arc<str>);

/// Which rule a would-be key broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// It has no bytes.
    Empty,
    /// It has more than [`MAX_KEY_BYTES`] bytes: so many.
    TooLong(usize),
    /// It holds a byte outside the alphabet.
    Alphabet,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::Empty => write!(f, "key cannot be empty"),
            KeyError::TooLong(bytes) => {
                write!(
                    f,
                    "key cannot be longer than {MAX_KEY_BYTES} bytes, this one has {bytes}"
                )
            }
            KeyError::Alphabet => {
                write!(
                    f,
                    "key may only contain ASCII letters, digits and the characters : _ . -"
                )
            }
        }
    }
}

impl std::error::Error for KeyError {}

impl TryFrom<&[u8]> for Key {
    type Error = KeyError;

    fn try_from(bytes: &[u8]) -> Result<Key, KeyError> {
        Key::check(bytes).map(|text| Key(text.into()))
    }
}

impl Key {
    /// What comes behind all keys that begin with `prefix`, and before all other keys that come behind `prefix`.
    pub(super) fn behind_all(prefix: &str) -> String {
        // Above all characters of keys.
        format!("{prefix}\u{7f}")
    }

    /// The bytes as text, if they follow the rules.
    pub(super) fn check(bytes: &[u8]) -> Result<&str, KeyError> {
        if bytes.is_empty() {
            return Err(KeyError::Empty);
        }
        if bytes.len() > MAX_KEY_BYTES {
            return Err(KeyError::TooLong(bytes.len()));
        }
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b':' | b'_' | b'.' | b'-');
        match std::str::from_utf8(bytes) {
            Ok(text) if bytes.iter().all(allowed) => Ok(text),
            _ => Err(KeyError::Alphabet),
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(bytes: &[u8]) -> Result<String, KeyError> {
        Key::try_from(bytes).map(|key| key.as_str().to_owned())
    }

    #[test]
    fn every_byte_of_the_alphabet_is_allowed_and_no_other() {
        for byte in 0..=u8::MAX {
            let named = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.-"
                .contains(&byte);
            assert_eq!(key(&[b'a', byte]).is_ok(), named, "byte {byte}");
        }
        assert_eq!(key("smile😊".as_bytes()), Err(KeyError::Alphabet));
    }

    #[test]
    fn a_key_has_1_to_1024_bytes() {
        assert_eq!(key(b""), Err(KeyError::Empty));
        assert!(key(&[b'k'; 1]).is_ok());
        assert!(key(&[b'k'; 1024]).is_ok());
        assert_eq!(key(&[b'k'; 1025]), Err(KeyError::TooLong(1025)));
    }
}

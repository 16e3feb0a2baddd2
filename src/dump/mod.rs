//! Exports: all entries of a store, or of a prefix, as text that other programs can make and read, too.
//!
//! An export is lines of JSON. In the first one, `keys` says how many entries follow; `revision` is that of the state:
//!
//! ```text
//! {"threadkv":1,"revision":1764252000000000,"keys":2}
//! {"key":"config","value":{"a": [1, 2]},"revision":1764251000000000}
//! {"key":"greeting","text":"hello","revision":1764251000000001,"expires_at":1764255000000}
//! {"end":true,"keys":2,"sha256":"…"}
//! ```
//!
//! `sha256` is the SHA-256 of all lines before, with their line ends. So an export that broke off, or was changed, shows. What is read
//! may leave out `keys` and `revision` of the first line, and `revision` of entries, which get new ones.
//!
//! The API streams exports and takes them ([`Reader`]), [`restore`] makes a store of one.

mod reader;
pub mod restore;

use hmac_sha256::Hash;

pub use reader::{Mistake, Reader};

use crate::store::{Command, Entry, Operation, Revision, When};

/// The version of the format.
pub(crate) const VERSION: u64 = 1;

/// A commit of what is read has at most so many entries: readers wait while it takes effect.
const COMMIT_ENTRIES: usize = 500;

/// It ends with the entry that brings it to so many bytes.
const COMMIT_BYTES: usize = 1 << 20;

/// The first line.
pub(crate) fn first_line(revision: Revision, keys: usize) -> String {
    format!("{{\"threadkv\":{VERSION},\"revision\":{revision},\"keys\":{keys}}}\n")
}

/// The last line, behind lines with this hash.
pub(crate) fn last_line(keys: usize, hash: Hash) -> String {
    let hash = hex(&hash.finalize());
    format!("{{\"end\":true,\"keys\":{keys},\"sha256\":\"{hash}\"}}\n")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes commands of bounded size that put these entries, with the number of entries of each.
pub(crate) fn commands(entries: Vec<Entry>) -> Vec<(Command, u64)> {
    let mut commands = Vec::new();
    let mut entries = entries.into_iter().peekable();
    while entries.peek().is_some() {
        let mut bytes = 0;
        let puts = entries.by_ref().take(COMMIT_ENTRIES);
        let mut some = Vec::new();
        for entry in puts {
            bytes += entry.bytes();
            some.push((Operation::Put(entry), When::default()));
            if bytes >= COMMIT_BYTES {
                break;
            }
        }
        let count = some.len() as u64;
        commands.push((Command::Bulk(some), count));
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_bounded_in_entries_and_in_bytes() {
        let sizes = |entries: Vec<Entry>| -> Vec<u64> {
            let commands = commands(entries);
            commands.into_iter().map(|(_, count)| count).collect()
        };
        let small = |n: usize| Entry::of(&format!("k{n}"), "v");
        let large = |n: usize| Entry::of(&format!("k{n}"), &"v".repeat(600_000));
        assert_eq!(sizes(Vec::new()), Vec::<u64>::new());
        assert_eq!(sizes((0..1001).map(small).collect()), [500, 500, 1]);
        assert_eq!(sizes((0..5).map(large).collect()), [2, 2, 1]);
    }
}

//! The entries, and the ways to find them: by key, in byte order, by deadline.
//!
//! At heart this is a `HashMap` from keys to entries ([`table`]). The rest is there so that keys can be listed in order ([`order`]) and
//! swept when they expire ([`deadlines`]), and so that nothing ever takes long at ten million keys: the map is parted, and the indexes
//! hold numbers of entries ([`slots`]) in place of pointers. [`entries`] keeps all of it in step.

mod deadlines;
mod entries;
mod order;
mod slots;
mod table;

pub(super) use entries::{Entries, Loader};

//! The map as it was at one moment, read bit by bit while others go on to change it.
//!
//! Copying all entries at once would block everybody. Instead, a writer that replaces an entry hands the old one to the view, if the
//! view has not reached that key yet. That costs a write some 300 ns while there is a view, and nothing otherwise.

use std::collections::BTreeMap;
use std::mem;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec;

use crate::budget::Budget;

use super::Entry;
use super::Map;
use super::Revision;
use super::entry::Record;
use super::index::Entries;
use super::map::Counted;
use super::removed;

/// Goes through all entries that the map had when this was made, in byte order of their keys; also those that have expired.
pub(super) struct Frozen {
    map: Arc<Map>,
    view: Arc<Mutex<View>>,
    fetched: vec::IntoIter<Entry>,
    revision: Revision,
}

impl Frozen {
    /// The map as it is now.
    pub(super) fn of(map: &Arc<Map>) -> Frozen {
        Frozen::of_prefix(map, "")
    }

    /// The keys of the map that begin with `prefix`, as they are now.
    pub(super) fn of_prefix(map: &Arc<Map>, prefix: &str) -> Frozen {
        let (view, revision) = map.add_view(prefix);
        Frozen {
            map: Arc::clone(map),
            view,
            fetched: Vec::new().into_iter(),
            revision,
        }
    }

    /// The same, and how many of them are live.
    pub(super) fn counted(map: &Arc<Map>, prefix: &str) -> (Frozen, Counted) {
        let (view, revision, counted) = map.add_counted_view(prefix);
        let frozen = Frozen {
            map: Arc::clone(map),
            view,
            fetched: Vec::new().into_iter(),
            revision,
        };
        (frozen, counted)
    }

    /// The revision that the map had then.
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }
}

impl Iterator for Frozen {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            if let Some(entry) = self.fetched.next() {
                return Some(entry);
            }
            let page = self.map.page_of_view(&self.view);
            self.fetched = page?.into_iter();
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.map.remove_view(&self.view);
        if let Some(all) = View::lock(&self.view).all.take() {
            removed::free_all(all, self.map.budget());
        }
    }
}

/// How far the reader has come, and the old entries of keys that it has not reached. Locked only under the lock of the map.
#[derive(Default)]
pub(super) struct View {
    /// What the keys begin with.
    prefix: Box<str>,
    /// The last key that the reader has come to.
    passed: Option<Record>,
    /// Keys behind `passed` that have changed since the view was made, with the entries they had then; `None` if they had none.
    old: BTreeMap<Record, Option<Entry>>,
    /// Footprint of these entries.
    held: u64,
    /// All entries, if the map has been cleared since. They do not change any more.
    all: Option<Arc<Entries>>,
}

impl View {
    /// Keys that begin with that.
    pub(super) fn of(prefix: &str) -> View {
        View {
            prefix: prefix.into(),
            ..View::default()
        }
    }

    pub(super) fn lock(view: &Mutex<View>) -> MutexGuard<'_, View> {
        // Nothing under this lock panics.
        view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the old entry of a key before a change. `record` is the new record of the key, or the removed one.
    pub(super) fn keep(&mut self, record: &Record, old: Option<&Entry>, budget: &Budget) {
        if self.all.is_none()
            && record.key().starts_with(&*self.prefix)
            && self.passed.as_ref() < Some(record)
            && !self.old.contains_key(record)
        {
            let bytes = old.map_or(0, Entry::footprint);
            budget.hold(bytes);
            self.held += bytes;
            self.old.insert(record.clone(), old.cloned());
        }
    }

    /// Takes the entries that it has kept. They may be many: they are to be dropped when nobody waits.
    #[must_use]
    pub(super) fn end(&mut self, budget: &Budget) -> BTreeMap<Record, Option<Entry>> {
        budget.let_go(mem::take(&mut self.held));
        mem::take(&mut self.old)
    }

    /// Keeps all entries before a clear.
    pub(super) fn keep_all(&mut self, all: &Arc<Entries>) {
        self.all.get_or_insert_with(|| Arc::clone(all));
    }

    /// The next entries, after a look at `step` keys; `None` at the end. `current` are those that the map has now.
    pub(super) fn page(
        &mut self,
        current: &Entries,
        step: usize,
        budget: &Budget,
    ) -> Option<Vec<Entry>> {
        let all = self.all.clone();
        let current = all.as_deref().unwrap_or(current);
        let passed = self.passed.take();
        let from = passed
            .as_ref()
            .map_or(Bound::Included(&*self.prefix), |it| {
                Bound::Excluded(it.key())
            });
        let current = current.from(from);
        let mut current = current
            .take_while(|it| it.key().starts_with(&*self.prefix))
            .peekable();
        let (mut page, mut let_go) = (Vec::new(), 0);
        let mut last = None::<Record>;
        for _ in 0..step {
            let next = current.peek().map(|entry| entry.record());
            let changed = self.old.first_entry();
            let (record, entry) = match (next, changed) {
                (next, Some(changed)) if next.is_none_or(|next| changed.key() <= next) => {
                    if next == Some(changed.key()) {
                        current.next();
                    }
                    let_go += changed.get().as_ref().map_or(0, Entry::footprint);
                    changed.remove_entry()
                }
                (Some(record), _) => (record.clone(), current.next().cloned()),
                (None, _) => break,
            };
            page.extend(entry);
            last = Some(record);
        }
        drop(current);
        self.held -= let_go;
        budget.let_go(let_go);
        let more = last.is_some();
        self.passed = last.or(passed);
        more.then_some(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::history::History;
    use crate::store::revision::Counter;
    use crate::store::{Command, Key, Operation};

    fn put(map: &Map, key: &str, value: &str) {
        map.execute(Operation::Put(Entry::of(key, value)).into())
            .unwrap();
    }

    fn delete(map: &Map, key: &str) {
        let key = Key::try_from(key.as_bytes()).unwrap();
        map.execute(Operation::Delete { key }.into()).unwrap();
    }

    /// More than are read at once.
    const KEYS: usize = 1000;

    fn filled() -> (Arc<Map>, Vec<Entry>) {
        let map = Arc::new(Map::unlimited());
        let entries: Vec<Entry> = (0..KEYS)
            .map(|n| Entry::of(&format!("k{n:04}"), "old"))
            .collect();
        for entry in &entries {
            map.execute(Operation::Put(entry.clone()).into()).unwrap();
        }
        (map, entries)
    }

    /// Changes keys before, at and behind the place of a reader in every way there is.
    fn change_everything(map: &Map) {
        for n in 0..KEYS {
            let key = format!("k{n:04}");
            match n % 4 {
                0 => put(map, &key, "new"),
                1 => delete(map, &key),
                2 => {
                    delete(map, &key);
                    put(map, &key, "newer");
                }
                _ => {
                    put(map, &format!("{key}.new"), "new");
                    put(map, &format!("{key}.gone"), "new");
                    delete(map, &format!("{key}.gone"));
                }
            }
        }
    }

    #[test]
    fn it_is_the_map_as_it_was_whatever_is_changed_and_when() {
        for read_before in [0, 1, 300, KEYS - 1, KEYS] {
            let (map, expected) = filled();
            let mut frozen = Frozen::of(&map);
            let mut found: Vec<Entry> = frozen.by_ref().take(read_before).collect();
            change_everything(&map);
            found.extend(frozen.by_ref().take(100));
            change_everything(&map);
            found.extend(frozen.by_ref());
            assert!(found == expected, "{read_before}");
        }
    }

    #[test]
    fn it_stays_as_it_was_where_the_map_is_loaded_anew() {
        for read_before in [0, 300] {
            let (map, expected) = filled();
            let mut frozen = Frozen::of(&map);
            let mut found: Vec<Entry> = frozen.by_ref().take(read_before).collect();
            put(&map, "k0900", "new");
            let loaded = [Entry::of("k0500", "loaded"), Entry::of("z", "loaded")];
            map.load(
                Entries::from_iter(loaded),
                Counter::default(),
                History::default(),
            );
            put(&map, "k0700", "newer");
            found.extend(frozen.by_ref());
            assert!(found == expected, "{read_before}");
            drop(frozen);
            assert_eq!((map.len(), map.views()), (3, 0));
        }
    }

    #[test]
    fn a_clear_takes_nothing_from_it_and_what_comes_behind_adds_nothing() {
        for read_before in [0, 300, KEYS] {
            let (map, expected) = filled();
            let mut frozen = Frozen::of(&map);
            let mut found: Vec<Entry> = frozen.by_ref().take(read_before).collect();
            put(&map, "k0500", "new");
            map.execute(Command::Clear).unwrap();
            change_everything(&map);
            map.execute(Command::Clear).unwrap();
            found.extend(frozen.by_ref());
            assert!(found == expected, "{read_before}");
        }
    }

    #[test]
    fn what_it_keeps_is_held_until_it_has_been_read() {
        let (map, _) = filled();
        let size = map.budget().stored();
        let each = size / KEYS as u64;
        let mut frozen = Frozen::of(&map);
        frozen.next();
        // Behind the place of the reader, and ahead of it.
        put(&map, "k0000", "new");
        assert_eq!(map.budget().held(), 0);
        put(&map, "k0999", "new");
        put(&map, "k0999", "newer");
        delete(&map, "k0998");
        assert_eq!(map.budget().held(), 2 * each);
        assert_eq!(frozen.by_ref().count(), KEYS - 1);
        assert_eq!(map.budget().held(), 0);
        drop(frozen);

        let frozen = Frozen::of(&map);
        put(&map, "k0500", "new");
        let size = map.budget().stored();
        map.execute(Command::Clear).unwrap();
        assert_eq!(map.budget().held(), each + size);
        drop(frozen);
        assert_eq!((map.budget().held(), map.budget().stored()), (0, 0));
    }

    #[test]
    fn one_of_a_prefix_has_its_keys_and_keeps_no_others() {
        let (map, mut expected) = filled();
        expected.retain(|it| it.key().starts_with("k01"));
        let mut frozen = Frozen::of_prefix(&map, "k01");
        let first = frozen.next();
        change_everything(&map);
        let kept = View::lock(&frozen.view).old.len();
        assert!((1..300).contains(&kept), "{kept}");
        assert!(first.into_iter().chain(frozen).eq(expected));
        assert_eq!(Frozen::of_prefix(&map, "z").count(), 0);
    }

    #[test]
    fn several_do_not_disturb_each_other_and_leave_nothing() {
        let (map, expected) = filled();
        let mut first = Frozen::of(&map);
        assert_eq!(first.next().as_ref(), Some(&expected[0]));
        change_everything(&map);
        let second: Vec<Entry> = Frozen::of(&map).collect();
        assert_eq!(second.len(), map.len());
        assert!(first.by_ref().eq(expected.into_iter().skip(1)));
        assert!(View::lock(&first.view).old.is_empty());
        drop(first);
        assert_eq!(map.views(), 0);
    }
}

use super::*;
use crate::store::Key;
use crate::store::index::Entries;

fn entry(key: &str, kind: Kind, value: &str, expiry: Option<u64>) -> Entry {
    let key = Key::try_from(key.as_bytes()).unwrap();
    let expiry = expiry.map(Expiry::at_millis);
    Entry::new(&key, kind, value.as_bytes(), expiry).unwrap()
}

#[test]
fn entries_are_read_as_they_were_written() {
    let (mut entries, mut block) = (Vec::new(), Vec::new());
    for value in ["", "x", "Nairobi 🌍\0", &"v".repeat(100_000)] {
        for expiry in [None, Some(0), Some(u64::MAX)] {
            for kind in [Kind::Text, Kind::Json] {
                let entry = entry(&"k".repeat(1024), kind, value, expiry);
                entries.push(entry.at((1 << 53) - 1 - entries.len() as u64));
            }
        }
    }
    entries.iter().for_each(|it| encode_entry(it, &mut block));
    let read = read_entries(&block, Form::Now).unwrap();
    let revisions =
        |entries: &[Entry]| -> Vec<Revision> { entries.iter().map(Entry::revision).collect() };
    assert_eq!(revisions(&read), revisions(&entries));
    assert_eq!(read, entries);
    for length in [1, 5, 1030, 1040, block.len() - 1] {
        let read = read_entries(&block[..length], Form::Now);
        assert_eq!(read, None, "{length}");
    }
}

fn store_of(entries: &[Entry]) -> Loading {
    Loading {
        entries: Loader::from_blocks([entries.to_vec()]),
        ..Loading::begin(1 << 20, 6)
    }
}

fn text(key: &str, value: &str) -> Entry {
    entry(key, Kind::Text, value, None)
}

fn gone(key: &str, revision: Revision, cause: Cause) -> Change {
    Change::Remove {
        key: Key::try_from(key.as_bytes()).unwrap(),
        revision,
        cause,
    }
}

fn clear(prefix: &str, revision: Revision) -> Change {
    Change::Clear {
        prefix: prefix.into(),
        revision,
    }
}

fn batch(changes: Changes) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&changes, &mut bytes);
    bytes
}

/// The history does not tell a touch from a put.
fn described(changes: &[Change]) -> Vec<String> {
    let describe = |it: &Change| format!("{it:?}").replace("Touch", "Put");
    changes.iter().map(describe).collect()
}

#[test]
fn a_batch_is_carried_out_as_it_was_written_and_all_of_it_remembered() {
    let old = ["a", "b", "c", "d:1"].map(|key| text(key, "1").at(6));
    let touched = old[2].with_expiry(Some(Expiry::at_millis(u64::MAX)));
    let list = vec![
        gone("a", 7, Cause::Deleted),
        Change::Touch(touched.at(8)),
        clear("d:", 9),
        gone("d:1", 9, Cause::Cleared),
        gone("b", 10, Cause::Expired),
        Change::Put(text("b", "2").at(10)),
        Change::Put(text("b", "3").at(11)),
    ];
    let bytes = batch(Changes {
        list: list.clone(),
        before: 6,
        revision: 11,
        ..Changes::default()
    });
    let mut loading = store_of(&old);
    assert_eq!(loading.apply(&bytes, Form::Now), Some(()));
    assert_eq!(loading.last, 11);
    let mut remembered = list;
    remembered.remove(3);
    let after: Vec<Change> = loading.history.iter().collect();
    assert_eq!(described(&after), described(&remembered));
    let entries: Entries = loading.entries.finish();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries.get("b").map(Entry::value), Some("3"));
    assert_eq!(entries.get("c").map(Entry::revision), Some(8));

    let short = &bytes[..bytes.len() - 1];
    assert_eq!(store_of(&old).apply(short, Form::Now), None);
    assert_eq!(store_of(&[]).apply(&bytes, Form::Now), None); // touches what is not there
    assert_eq!(store_of(&[]).apply(&[2], Form::Now), None);
    let all = batch(Changes {
        list: vec![clear("", 7), Change::Put(text("z", "1").at(8))],
        before: 6,
        revision: 8,
        ..Changes::default()
    });
    let mut loading = store_of(&old);
    loading.apply(&all, Form::Now).unwrap();
    assert_eq!(loading.entries.finish().len(), 1);
}

#[test]
fn a_correction_takes_the_place_of_what_it_corrects() {
    let old = [text("a", "1").at(6)];
    let put = |key, value, revision| Change::Put(text(key, value).at(revision));
    let made = Changes {
        list: vec![put("a", "2", 7), put("b", "2", 8), put("c", "2", 9)],
        before: 6,
        revision: 9,
        ..Changes::default()
    };
    let correction = Changes {
        list: vec![
            put("a", "1", 6),
            gone("b", 6, Cause::Cleared),
            gone("c", 6, Cause::Cleared),
            put("b", "3", 7),
        ],
        before: 6,
        revision: 7,
        corrects: true,
        ..Changes::default()
    };
    let mut loading = store_of(&old);
    loading.apply(&batch(made), Form::Now).unwrap();
    loading.apply(&batch(correction), Form::Now).unwrap();
    assert_eq!(loading.last, 7);
    let after: Vec<Change> = loading.history.iter().collect();
    assert_eq!(described(&after), described(&[put("b", "3", 7)]));
    let entries: Entries = loading.entries.finish();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries.get("a").map(Entry::revision), Some(6));
}

#[test]
fn what_earlier_versions_wrote_is_read_and_begins_a_history() {
    let number = |it: u64| it.to_le_bytes();
    let removed = [0, 1, 0, b'a'];
    let set = |revision: &[u8]| {
        let (head, value) = ([SET, 1, 0, b'k'], [1, 0, 0, 0, b'v']);
        [&head[..], revision, &value].concat()
    };
    let touched = [&[TOUCHED | EXPIRES, 1, 0, b'k'][..], &[9; 8]].concat();
    let old = [text("a", "1")];

    let version_4 = [
        &[0][..],
        &number(88),
        &removed,
        &set(&number(87)),
        &[TOUCHED, 1, 0, b'k'],
        &number(88),
    ];
    let mut loading = store_of(&old);
    loading.apply(&version_4.concat(), Form::V4).unwrap();
    assert_eq!((loading.last, loading.history.oldest()), (88, 88));
    assert_eq!(loading.entries.get("a"), None);
    assert_eq!(loading.entries.get("k").map(Entry::revision), Some(88));

    let version_3 = [&[1][..], &set(&[]), &touched].concat();
    let mut loading = store_of(&old);
    loading.apply(&version_3, Form::V3(77)).unwrap();
    assert_eq!((loading.last, loading.history.oldest()), (77, 77));
    let expires = Entry::of("k", "v").with_expiry(Some(Expiry::at_millis(0x0909_0909_0909_0909)));
    assert_eq!(loading.entries.get("k"), Some(&expires));
    assert_eq!(loading.entries.get("k").map(Entry::revision), Some(77));
    let read = read_entries(&set(&[]), Form::V3(78)).unwrap();
    assert_eq!(read, [Entry::of("k", "v")]);
    assert_eq!(read[0].revision(), 78);
}

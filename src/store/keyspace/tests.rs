use super::*;
use crate::store::{Command, Key, Operation, Outcome};

/// The time at which commands are carried out.
const NOW: u64 = 10;

fn key(text: &str) -> Key {
    Key::try_from(text.as_bytes()).unwrap()
}

fn execute(command: Command, keys: &mut impl Keyspace) -> Outcome {
    command.execute(keys, Expiry::at_millis(NOW))
}

fn expiring(key: &str, millis: u64) -> Entry {
    Entry::of(key, "1").with_expiry(Some(Expiry::at_millis(millis)))
}

/// Keys and what becomes of them, by key.
fn changed(staged: Staged<'_>) -> Vec<(String, Option<Entry>)> {
    let changes = staged.into_changes().entries.into_iter();
    let mut changed: Vec<_> = changes
        .map(|it| (it.key().to_owned(), it.entry().cloned()))
        .collect();
    changed.sort_by(|a, b| a.0.cmp(&b.0));
    changed
}

#[test]
fn commands_of_a_batch_see_each_other_and_the_base_stays() {
    let base = Entries::from_iter([Entry::of("a", "1"), Entry::of("b", "2")]);
    let mut staged = Staged::on(&base);
    let delete = |name| Command::One(Operation::Delete { key: key(name) });
    let put = |name, text| Command::One(Operation::Put(Entry::of(name, text)));
    assert_eq!(execute(delete("a"), &mut staged), Outcome::Done);
    assert_eq!(execute(delete("a"), &mut staged), Outcome::NotFound);
    assert_eq!(execute(put("c", "3"), &mut staged), Outcome::Done);
    assert_eq!(execute(delete("c"), &mut staged), Outcome::Done);
    assert_eq!(execute(put("b", "4"), &mut staged), Outcome::Done);
    assert_eq!(execute(put("b", "5"), &mut staged), Outcome::Done);
    assert!(!staged.changes.cleared);
    let expected = [("a".into(), None), ("b".into(), Some(Entry::of("b", "5")))];
    assert_eq!(changed(staged), expected);
    assert_eq!(base.get("a"), Some(&Entry::of("a", "1")));
}

#[test]
fn after_a_clear_only_what_came_later_counts() {
    let base = Entries::from_iter([Entry::of("a", "1")]);
    let mut staged = Staged::on(&base);
    staged.set(Entry::of("b", "2"));
    execute(Command::Clear, &mut staged);
    assert!(staged.get("a").is_none() && staged.get("b").is_none());
    assert_eq!(
        execute(
            Command::One(Operation::Delete { key: key("a") }),
            &mut staged
        ),
        Outcome::NotFound
    );
    staged.set(Entry::of("c", "3"));
    assert!(staged.changes.cleared);
    let expected = [("c".into(), Some(Entry::of("c", "3")))];
    assert_eq!(changed(staged), expected);
}

#[test]
fn what_has_expired_counts_as_not_there() {
    let base = Entries::from_iter([expiring("a", 1)]);
    let mut staged = Staged::on(&base);
    assert_eq!(
        execute(
            Command::One(Operation::Delete { key: key("a") }),
            &mut staged
        ),
        Outcome::NotFound
    );
    assert_eq!(changed(staged), [("a".into(), None)]);
}

#[test]
fn a_sweep_removes_what_has_expired_and_nothing_else() {
    let base = Entries::from_iter([
        expiring("a", 1),
        expiring("b", 1),
        expiring("c", u64::MAX),
        Entry::of("d", "1"),
    ]);
    let mut staged = Staged::on(&base);
    staged.set(Entry::of("b", "2"));
    assert_eq!(execute(Command::Sweep, &mut staged), Outcome::Swept(1));
    let expected = [("a".into(), None), ("b".into(), Some(Entry::of("b", "2")))];
    assert_eq!(changed(staged), expected);

    let mut cleared = Staged::on(&base);
    cleared.clear();
    assert_eq!(execute(Command::Sweep, &mut cleared), Outcome::Swept(0));
}

#[test]
fn operations_of_a_bulk_see_those_before_them() {
    let base = Entries::from_iter([Entry::of("a", "1")]);
    let mut staged = Staged::on(&base);
    let expiry = Expiry::at_millis(u64::MAX);
    let touch = |name| Operation::Touch {
        key: key(name),
        expiry,
    };
    let delete = |name| Operation::Delete { key: key(name) };
    let bulk = vec![touch("a"), touch("b"), delete("a"), delete("a"), touch("a")];
    assert_eq!(
        execute(Command::Bulk(bulk), &mut staged),
        Outcome::Each(vec![true, false, true, false, false])
    );
    assert_eq!(changed(staged), [("a".into(), None)]);

    let mut staged = Staged::on(&base);
    assert_eq!(
        execute(Command::One(touch("a")), &mut staged),
        Outcome::Done
    );
    assert_eq!(
        execute(Command::One(touch("b")), &mut staged),
        Outcome::NotFound
    );
    let touched = expiring("a", u64::MAX);
    assert_eq!(changed(staged), [("a".into(), Some(touched))]);
    assert_eq!(base.get("a"), Some(&Entry::of("a", "1")));
}

#[test]
fn touches_of_what_was_live_before_the_batch_may_come_too_late() {
    let base = Entries::from_iter([
        expiring("a", NOW + 1),
        expiring("b", NOW + 1),
        expiring("gone", NOW),
        Entry::of("never", "1"),
    ]);
    let mut staged = Staged::on(&base);
    let touch = |name| Operation::Touch {
        key: key(name),
        expiry: Expiry::at_millis(u64::MAX),
    };
    let put = |name| Operation::Put(expiring(name, NOW + 5));
    let commands = [
        Command::One(touch("a")),
        Command::Bulk(vec![
            touch("gone"),
            touch("never"),
            touch("a"),
            put("a"),
            touch("a"),
        ]),
        Command::Bulk(vec![put("b"), touch("b")]),
        Command::One(touch("a")),
        Command::One(touch("gone")),
    ];
    let outcomes = commands.clone().map(|it| execute(it, &mut staged));
    let each = |found: &[bool]| Outcome::Each(found.to_vec());
    let mut expected = [
        Outcome::Done,
        each(&[false, true, true, true, true]),
        each(&[true, true]),
        Outcome::Done,
        Outcome::NotFound,
    ];
    assert_eq!(outcomes, expected);
    let touched = staged.into_changes().touched;
    assert_eq!(touched, [expiring("a", NOW + 1)]);

    let mut late = HashSet::from(["a".to_owned()]);
    let mut outcomes = outcomes;
    let changed: Vec<bool> = commands
        .iter()
        .zip(&mut outcomes)
        .map(|(command, outcome)| command.touch_nothing(&mut late, outcome))
        .collect();
    assert_eq!(changed, [true, true, false, false, false]);
    expected[0] = Outcome::NotFound;
    expected[1] = each(&[false, true, false, true, true]);
    assert_eq!(outcomes, expected);
}

use super::*;
use crate::dump::{first_line, last_line};

/// The export with these lines of entries.
fn export(entries: &[&str]) -> String {
    let mut text = first_line(7, entries.len());
    for entry in entries {
        text += entry;
        text += "\n";
    }
    let mut hash = Hash::new();
    hash.update(&text);
    text + &last_line(entries.len(), hash)
}

/// Reads it in pieces of that size.
fn read(text: &[u8], piece: usize) -> (Vec<Entry>, Result<(), Mistake>) {
    let (mut reader, mut entries) = (Reader::new(300), Vec::new());
    for piece in text.chunks(piece) {
        if let Err(mistake) = reader.read(piece, &mut entries) {
            return (entries, Err(mistake));
        }
    }
    let end = reader.end(&mut entries);
    (entries, end)
}

const A: &str = r#"{"key":"a","value":{"x":  [1,"é\n"]},"revision":5}"#;
const B: &str = r#"{"key":"b","text":"tab\t \"é🌍","revision":6,"expires_at":99999999999999}"#;
const C: &str = r#"{"key":"c","value":null}"#;
const D: &str = r#"{"key":"d","value":"text","more":[]}"#;

#[test]
fn entries_come_as_they_were_whatever_the_pieces() {
    let text = export(&[A, B, C, D]);
    let never = |key: &str, kind, value: &str| {
        let key = Key::try_from(key.as_bytes()).unwrap();
        Entry::new(&key, kind, value.as_bytes(), None).unwrap()
    };
    let expiry = Some(Expiry::at_millis(99_999_999_999_999));
    let expected = [
        never("a", Kind::Json, r#"{"x":  [1,"é\n"]}"#),
        never("b", Kind::Text, "tab\t \"é🌍").with_expiry(expiry),
        never("c", Kind::Json, "null"),
        never("d", Kind::Text, "text"),
    ];
    for piece in [1, 2, 3, 50, 1000] {
        let (entries, end) = read(text.as_bytes(), piece);
        assert_eq!((&entries[..], end), (&expected[..], Ok(())), "{piece}");
    }
    let bare = text.trim_end();
    assert_eq!(read(bare.as_bytes(), 10).1, Ok(()));
    assert_eq!(read(format!("{text}\n \n").as_bytes(), 10).1, Ok(()));
    assert_eq!(read(export(&[]).as_bytes(), 10), (Vec::new(), Ok(())));
}

#[test]
fn a_mistake_is_said_with_its_line_and_what_is_before_it_is_read() {
    let all = export(&[A, B, C]);
    let cut = |lines: usize| -> String { all.split_inclusive('\n').take(lines).collect() };
    let long = format!(r#"{{"key":"k","text":"{}"}}"#, "x".repeat(301));
    let longer = "x".repeat(300 * ESCAPED + AROUND_A_VALUE + 1);
    let deep = format!(
        r#"{{"key":"k","value":{}{}}}"#,
        "[".repeat(129),
        "]".repeat(129)
    );
    let wrong = |line: &str| export(&[A, line, C]);
    let cases: Vec<(String, u64, usize, &str)> = vec![
        ("".into(), 1, 0, "nothing"),
        ("\n".into(), 1, 0, "not an export"),
        ("key,value\n".into(), 1, 0, "not an export"),
        (r#"{"key":"a","value":1}"#.into(), 1, 0, "not an export"),
        ("[1]\n".into(), 1, 0, "not an export"),
        ("{\"threadkv\":2}\n".into(), 1, 0, "version 2"),
        (cut(1), 2, 0, "0 of 3 keys"),
        (cut(3), 4, 2, "2 of 3 keys"),
        (cut(4), 5, 3, "without its last line"),
        (cut(2) + &B[..20], 3, 1, "middle of its JSON"),
        (cut(3) + &all.lines().last().unwrap()[..30], 4, 2, "middle"),
        (all.replace("tab", "tub"), 5, 3, "sha256"),
        (
            all.replace(&format!("{B}\n"), ""),
            4,
            2,
            "3 keys were to come",
        ),
        (all.replacen("\"keys\":3", "\"keys\":4", 1), 5, 3, "4 keys"),
        (all.replace("\"sha256\"", "\"sha\""), 5, 3, "must have"),
        (all.clone() + A, 6, 3, "behind the last line"),
        (all.clone() + &all, 6, 3, "behind the last line"),
        (wrong(""), 3, 1, "empty"),
        (wrong("{\"key\":"), 3, 1, "middle of its JSON"),
        (wrong("{\"key\" 1}"), 3, 1, "not valid JSON"),
        (wrong("[]"), 3, 1, "not an entry"),
        (wrong("{}"), 3, 1, "key is missing"),
        (wrong(r#"{"key":1,"value":1}"#), 3, 1, "not an entry"),
        (wrong(r#"{"key":"","value":1}"#), 3, 1, "cannot be empty"),
        (
            wrong(r#"{"key":"a b","value":1}"#),
            3,
            1,
            "may only contain",
        ),
        (wrong(r#"{"key":"k"}"#), 3, 1, "value or text"),
        (
            wrong(r#"{"key":"k","value":1,"text":""}"#),
            3,
            1,
            "value or text",
        ),
        (wrong(r#"{"key":"k","value":"\ud800"}"#), 3, 1, "string"),
        (
            wrong(r#"{"key":"k","value":1,"expires_at":-1}"#),
            3,
            1,
            "not an entry",
        ),
        (wrong(&long), 3, 1, "more than 300 bytes"),
        (wrong(&longer), 3, 1, "too long"),
        (wrong(&deep), 3, 1, "nested"),
    ];
    for (text, line, count, what) in cases {
        for piece in [7, 1_000_000] {
            let (entries, end) = read(text.as_bytes(), piece);
            let mistake = end.unwrap_err();
            let found = (mistake.line, entries.len());
            assert_eq!(found, (line, count), "{mistake}: {what}");
            assert!(mistake.what.contains(what), "{mistake}: {what}");
        }
    }
    let (entries, end) = read(&[export(&[A]).as_bytes(), b"\xff"].concat(), 9);
    assert_eq!((entries.len(), end.unwrap_err().line), (1, 4));
}

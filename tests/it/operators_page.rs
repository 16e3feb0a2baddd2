//! The page at `GET /`, as those use it who operate the server: in a real browser, by clicks and by keys.

use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac_sha256::Hash;
use serde_json::{Value, json};

use crate::devtools::Tab;
use crate::directory::Directory;
use crate::ports::free_address;
use crate::process::{Server, wait_for};
use crate::tokens::TokenFile;

/// The labels of the rows of the tree that can be seen.
const ROWS: &str = "[...document.querySelectorAll('#tree .row')].filter(it => it.checkVisibility()).map(it => it.textContent)";

/// Opens the page of a server.
pub fn open(server: &Server, path: &str) -> Option<Tab> {
    Tab::open(&format!("http://{}/{path}", server.address))
}

#[track_caller]
pub fn wait_for_rows(tab: &mut Tab, rows: &[&str]) {
    let rows = json!(json!(rows).to_string());
    tab.wait_for(&format!("JSON.stringify({ROWS}) === {rows}"));
}

#[track_caller]
pub fn click_row(tab: &mut Tab, label: &str) {
    let row = format!(
        "[...document.querySelectorAll('#tree .row')].find(it => it.checkVisibility() && it.textContent === '{label}')"
    );
    tab.wait_for(&row);
    tab.evaluate(&format!("{row}.click()"));
}

/// Opens a key by the address, and waits until its entry is shown.
#[track_caller]
pub fn open_key(tab: &mut Tab, key: &str) {
    tab.evaluate(&format!("void (location.hash = '{key}')"));
    tab.wait_for(&format!("document.title.startsWith('{key} ')"));
}

#[track_caller]
fn wait_for_message(tab: &mut Tab, text: &str) {
    tab.wait_for_text("#message", text);
}

/// What the server has, with its expiry.
fn entry(server: &Server, key: &str) -> Value {
    server
        .get(&format!("/api/v1/kv/{key}?with_ttl=true"))
        .json()["data"]
        .take()
}

fn put_json(server: &Server, key: &str, body: &str) {
    let answer = server.put(&format!("/api/v1/kv/{key}"), body);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn it_is_one_answer_whose_policy_allows_what_is_in_it_and_nothing_else() {
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    tokens.create(&[]);
    // It has no data, so it needs no token.
    let server = Server::start(&["--auth", tokens.path()]);
    let page = server.get("/");
    assert_eq!(page.status, 200);
    assert!(page.body.len() <= 40_000, "{}", page.body.len());
    let header = |name| page.header(name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(header("content-type"), "text/html; charset=utf-8");
    assert_eq!(header("referrer-policy"), "no-referrer");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(header("cache-control"), "no-cache");
    let hash_between = |start: &str, end: &str| {
        let (_, rest) = page.text().split_once(start).unwrap();
        let (inside, _) = rest.split_once(end).unwrap();
        format!("sha256-{}", STANDARD.encode(Hash::hash(inside.as_bytes())))
    };
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
        hash_between("<script type=\"module\">", "</script>"),
        hash_between("<style>", "</style>"),
    );
    assert_eq!(header("content-security-policy"), policy);

    let head = server.send("HEAD", "/", "");
    assert_eq!((head.status, &*head.body), (200, &b""[..]));
    assert_eq!(head.header("etag"), page.header("etag"));
    for (tag, status) in [
        (header("etag"), 304),
        (&*format!("\"other\", W/{}", header("etag")), 304),
        ("*", 304),
        ("\"other\"", 200),
    ] {
        let condition = format!("If-None-Match: {tag}\r\n");
        let again = server.connect().send_with(&condition, "GET", "/", "");
        assert_eq!(again.status, status, "{tag}");
        assert_eq!(again.header("etag"), page.header("etag"));
    }
    let refused = server.post("/", "");
    refused.expect(405, "method not allowed\n");
    assert_eq!(refused.header("allow"), Some("GET, HEAD"));
    // A query is ignored, as elsewhere.
    assert_eq!(server.get("/?x").status, 200);
}

#[test]
fn it_counts_towards_the_rate_limit() {
    let server = Server::start(&["--rate-limit", "2/m"]);
    let remaining = |answer: &crate::client::Response| {
        answer
            .header("x-ratelimit-remaining")
            .map(str::to_owned)
            .unwrap()
    };
    assert_eq!(remaining(&server.get("/")), "1");
    assert_eq!(remaining(&server.get("/")), "0");
    server.get("/").expect(429, "rate limit exceeded\n");
}

#[test]
fn keys_are_a_tree_that_is_loaded_page_by_page() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for key in [
        "10",
        "9",
        "__proto__",
        "kenya:capital",
        "user",
        "user:",
        "user:1:mail",
        "user:1:name",
        "user:2",
        "users",
    ] {
        client
            .send("PUT", &format!("/kv/{key}"), "v")
            .expect(200, "");
    }
    for n in 0..230 {
        let key = format!("/kv/session:{n:03}");
        client.send("PUT", &key, "v").expect(200, "");
    }
    let Some(mut tab) = open(&server, "") else {
        return;
    };
    let top = [
        "10",
        "9",
        "__proto__",
        "kenya:",
        "session:",
        "user",
        "user:",
        "users",
    ];
    wait_for_rows(&mut tab, &top);
    click_row(&mut tab, "user:");
    let opened = [&top[..7], &["user:", "1:", "2"], &top[7..]].concat();
    wait_for_rows(&mut tab, &opened);
    click_row(&mut tab, "1:");
    let opened = [&top[..7], &["user:", "1:", "mail", "name", "2"], &top[7..]].concat();
    wait_for_rows(&mut tab, &opened);
    // The second row of this name is the key in the group. A click on the first one closes the group.
    click_row(&mut tab, "user:");
    wait_for_rows(&mut tab, &top);

    let number = format!("{ROWS}.length");
    click_row(&mut tab, "session:");
    tab.wait_for(&format!("{number} === {}", 8 + 100 + 1));
    click_row(&mut tab, "Show more");
    tab.wait_for(&format!("{number} === {}", 8 + 200 + 1));
    click_row(&mut tab, "Show more");
    tab.wait_for(&format!("{number} === {}", 8 + 230));
    let last = tab.evaluate(&format!("{ROWS}[8 + 230 - 4]"));
    assert_eq!(last, "229");

    tab.fill("#prefix", "user");
    wait_for_rows(&mut tab, &["user", "user:", "users"]);
    tab.fill("#prefix", "user:1:");
    wait_for_rows(&mut tab, &["user:1:mail", "user:1:name"]);
    tab.fill("#prefix", "nobody");
    tab.wait_for_text("#empty", "No key begins like this");
    for url in &tab.asked_for {
        assert!(!url.contains("/kv?") || url.contains("limit=100"), "{url}");
    }
    tab.expect_peace(&format!("http://{}", server.address));
}

#[test]
fn an_entry_is_read_changed_and_deleted() {
    let server = Server::start(&[]);
    server
        .put("/kv/text", "line 1\nline 2 \u{1f30d}")
        .expect(200, "");
    put_json(
        &server,
        "json",
        r#"{"value": {"b": 1.0, "a": 123456789012345678901234567890}, "ttl": 3600}"#,
    );
    let Some(mut tab) = open(&server, "") else {
        return;
    };
    wait_for_rows(&mut tab, &["json", "text"]);
    click_row(&mut tab, "text");
    tab.wait_for_text("#about", "18 bytes · never expires · revision ");
    assert_eq!(tab.text("#value"), "line 1\nline 2 \u{1f30d}");
    assert_eq!(tab.text("[name=kind]:checked"), "text");
    tab.fill("#value", "1");
    tab.click("#save");
    wait_for_message(&mut tab, "text is saved");
    // The text 1, not the number.
    assert_eq!(entry(&server, "text"), json!({"value": "1"}));

    // JSON is shown and kept as it was put, and so is the time when it expires.
    click_row(&mut tab, "json");
    tab.wait_for_text("#about", "expires in ");
    let value = r#"{"b": 1.0, "a": 123456789012345678901234567890}"#;
    assert_eq!(tab.text("#value"), value);
    assert_eq!(tab.text("[name=kind]:checked"), "json");
    tab.fill("#value", &value.replace("1.0", "2.0"));
    tab.click("#save");
    wait_for_message(&mut tab, "json is saved");
    server
        .get("/kv/json")
        .expect(200, &value.replace("1.0", "2.0"));
    let ttl = entry(&server, "json")["ttl"].as_u64().unwrap();
    assert!((3500..=3600).contains(&ttl), "{ttl}");
    // What is no JSON is not sent, nor is what would be more than a value.
    for wrong in ["{", r#"1, "ttl": 1"#] {
        tab.fill("#value", wrong);
        tab.click("#save");
        wait_for_message(&mut tab, "This is no JSON");
    }
    tab.click("#undo");
    assert_eq!(tab.text("#value"), value.replace("1.0", "2.0"));
    tab.evaluate("document.querySelector('#expiry').value = 'never'");
    tab.click("#save");
    tab.wait_for_text("#about", "never expires");
    assert_eq!(entry(&server, "json")["ttl"], Value::Null);

    tab.click("#new");
    tab.fill("#key", "new:key");
    tab.fill("#value", "there");
    tab.evaluate("document.querySelector('#expiry').value = 'in'");
    tab.evaluate("document.querySelector('#form').dispatchEvent(new Event('input'))");
    tab.fill("#seconds", "60");
    tab.click("#save");
    wait_for_message(&mut tab, "new:key is saved");
    assert_eq!(entry(&server, "new:key")["value"], "there");
    assert!(entry(&server, "new:key")["ttl"].as_u64().unwrap() <= 60);
    wait_for_rows(&mut tab, &["json", "new:", "text"]);

    tab.click("#delete");
    tab.click("#sure-no");
    tab.click("#delete");
    tab.wait_for_text("#sure-text", "Delete new:key?");
    assert_eq!(entry(&server, "new:key")["value"], "there");
    tab.click("#sure-yes");
    wait_for_message(&mut tab, "new:key is deleted");
    server.get("/kv/new:key").expect(404, "key not found\n");
    tab.expect_peace(&format!("http://{}", server.address));
}

#[test]
fn whoever_is_slower_sees_what_is_there_now_and_chooses() {
    let server = Server::start(&[]);
    server.put("/kv/a", "first").expect(200, "");
    let Some(mut tab) = open(&server, "#a") else {
        return;
    };
    tab.wait_for("document.querySelector('#value').value === 'first'");
    // Without the stream, the page does not know.
    tab.click("#follow");
    let lose = |tab: &mut Tab, theirs: &str| {
        server.put("/kv/a", theirs).expect(200, "");
        tab.fill("#value", "mine");
        tab.click("#save");
        tab.wait_for_text("#conflict-text", "nothing has been saved");
        tab.wait_for_text("#conflict-value", theirs);
        assert_eq!(tab.text("#value"), "mine");
        server.get("/kv/a").expect(200, theirs);
    };
    lose(&mut tab, "theirs");
    tab.click("#conflict-theirs");
    tab.wait_for("document.querySelector('#value').value === 'theirs'");
    server.get("/kv/a").expect(200, "theirs");

    lose(&mut tab, "theirs again");
    // Again somebody is faster than the answer to what was shown.
    server.put("/kv/a", "faster still").expect(200, "");
    tab.click("#conflict-mine");
    tab.wait_for_text("#conflict-value", "faster still");
    tab.click("#conflict-mine");
    wait_for_message(&mut tab, "a is saved");
    server.get("/kv/a").expect(200, "mine");

    // One that is gone can be put again.
    server.delete("/kv/a").expect(200, "");
    tab.fill("#value", "mine again");
    tab.click("#save");
    tab.wait_for_text("#conflict-there", "The key is gone");
    tab.click("#conflict-mine");
    wait_for_message(&mut tab, "a is saved");
    server.get("/kv/a").expect(200, "mine again");

    // Nobody deletes what they have not seen.
    server.put("/kv/a", "changed").expect(200, "");
    tab.click("#delete");
    tab.click("#sure-yes");
    wait_for_message(&mut tab, "it has not been deleted");
    assert_eq!(tab.text("#value"), "changed");
    server.get("/kv/a").expect(200, "changed");
    // Nor does a new key take the place of one that is there.
    tab.click("#new");
    tab.fill("#key", "a");
    tab.fill("#value", "new");
    tab.click("#save");
    tab.wait_for_text("#conflict-value", "changed");
    server.get("/kv/a").expect(200, "changed");
    tab.expect_peace(&format!("http://{}", server.address));
}

#[test]
fn changes_are_shown_as_they_come() {
    let address = free_address();
    let port = address.port().to_string();
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_threadkv"));
        command.args(["--port", &port]);
        Server::spawn(command)
    };
    let mut server = start();
    for key in ["a", "b:1", "b:2", "c"] {
        server.put(&format!("/kv/{key}"), "v").expect(200, "");
    }
    let Some(mut tab) = open(&server, "#a") else {
        return;
    };
    tab.wait_for("document.querySelector('#value').value === 'v'");
    wait_for_rows(&mut tab, &["a", "b:", "c"]);
    click_row(&mut tab, "b:");
    wait_for_rows(&mut tab, &["a", "b:", "1", "2", "c"]);

    server.put("/kv/b:3", "v").expect(200, "");
    server.put("/kv/d:1:x", "v").expect(200, "");
    wait_for_rows(&mut tab, &["a", "b:", "1", "2", "3", "c", "d:"]);
    tab.wait_for_text("#changes li", "d:1:x");
    tab.wait_for_text("#changes li + li", "b:3");
    server.delete("/kv/b:1").expect(200, "");
    server.delete("/kv/c").expect(200, "");
    put_json(&server, "e", r#"{"value": 1, "ttl": 1}"#);
    wait_for_rows(&mut tab, &["a", "b:", "2", "3", "d:", "e"]);
    wait_for_rows(&mut tab, &["a", "b:", "2", "3", "d:"]);
    tab.wait_for_text("#changes", "expire");
    // With its last key a group goes.
    let cleared = server.delete("/api/v1/kv?prefix=b:");
    assert_eq!(cleared.status, 200);
    wait_for_rows(&mut tab, &["a", "d:"]);
    tab.wait_for_text("#changes", "b:…");

    // The entry that is open says so, and shows what is there when it is asked to.
    assert_eq!(tab.text("#value"), "v");
    server.put("/kv/a", "other").expect(200, "");
    tab.wait_for_text("#notice", "Somebody has changed this entry");
    assert_eq!(tab.text("#value"), "v");
    tab.click("#notice-show");
    tab.wait_for("document.querySelector('#value').value === 'other'");
    // What somebody types is not lost over it.
    tab.fill("#value", "typed");
    server.delete("/kv/a").expect(200, "");
    tab.wait_for_text("#notice", "This key is gone");
    tab.click("#notice-show");
    tab.wait_for_text("#conflict-there", "The key is gone");
    assert_eq!(tab.text("#value"), "typed");
    tab.click("#conflict-theirs");
    tab.wait_for("document.querySelector('#form').hidden");

    // A server that starts again in memory has another life, and is shown as it is then.
    server.kill();
    tab.wait_for_text("#health", "Cannot be reached");
    server = start();
    server.put("/kv/z", "v").expect(200, "");
    wait_for_rows(&mut tab, &["z"]);
    tab.wait_for_text("#health", "Healthy");
    server.put("/kv/y", "v").expect(200, "");
    wait_for_rows(&mut tab, &["y", "z"]);

    // Who does not want to follow does not.
    tab.click("#follow");
    wait_for("the stream to end", || {
        let status = server.get("/api/v1/status").json();
        (status["data"]["watchers"] == 0).then_some(())
    });
    server.put("/kv/x", "v").expect(200, "");
    tab.click("#follow");
    wait_for_rows(&mut tab, &["x", "y", "z"]);
    tab.expect_peace(&format!("http://{}", server.address));
}

#[test]
fn a_token_is_asked_for_and_kept_in_the_tab() {
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    let token = tokens.create(&["--name", "all"]);
    let reader = tokens.create(&["--name", "reader", "--read-only"]);
    let server = Server::start(&["--auth", tokens.path()]);
    let header = format!("X-API-Key: {token}\r\n");
    let mut client = server.connect();
    client
        .send_with(&header, "PUT", "/kv/a", "v")
        .expect(200, "");
    let Some(mut tab) = open(&server, "") else {
        return;
    };
    // Health needs none.
    tab.wait_for_text("#health", "Healthy");
    tab.wait_for("document.querySelector('#ask').open");
    for wrong in ["wrong", "wr\u{f6}ng", "\u{1f30d}"] {
        tab.fill("#token", wrong);
        tab.press("Enter");
        tab.wait_for_text("#ask-why", "The server does not know this token");
        tab.evaluate("document.querySelector('#ask-why').textContent = ''");
    }
    wait_for_rows(&mut tab, &[]);
    tab.fill("#token", &reader);
    tab.press("Enter");
    wait_for_rows(&mut tab, &["a"]);
    assert_eq!(tab.evaluate("document.querySelector('#ask').open"), false);
    // It is asked for once, and the stream has it too.
    tab.reload();
    wait_for_rows(&mut tab, &["a"]);
    client
        .send_with(&header, "PUT", "/kv/b", "v")
        .expect(200, "");
    wait_for_rows(&mut tab, &["a", "b"]);
    assert_eq!(
        tab.evaluate("Object.values(sessionStorage)"),
        json!([reader])
    );
    assert_eq!(tab.evaluate("localStorage.length"), 0);
    assert_eq!(tab.evaluate("document.cookie"), "");
    // It may only read.
    click_row(&mut tab, "a");
    tab.fill("#value", "changed");
    tab.click("#save");
    wait_for_message(&mut tab, "This token may only read");
    assert_eq!(tab.text("#value"), "changed");
    tab.click("#undo");

    // One that is revoked is asked for again, and another one does as well.
    tokens.run("revoke", &["--name", "reader"]);
    tab.wait_for_text("#ask-why", "any more");
    tab.fill("#token", &token);
    tab.press("Enter");
    tab.wait_for("!document.querySelector('#ask').open");
    tab.fill("#value", "changed");
    tab.click("#save");
    wait_for_message(&mut tab, "a is saved");
    // A link has no token, so the page asks for the value by itself.
    tab.click("#raw");
    let raw = format!("http://{}/kv/a", server.address);
    wait_for("the value to be asked for", || {
        tab.evaluate("0");
        tab.asked_for.contains(&raw).then_some(())
    });
    tab.click("#token-button");
    tab.wait_for("document.querySelector('#ask').open");
    assert_eq!(tab.evaluate("sessionStorage.length"), 0);
    for url in &tab.asked_for {
        assert!(!url.contains(&token) && !url.contains(&reader), "{url}");
    }
    tab.expect_peace(&format!("http://{}", server.address));
}

#[test]
fn the_keyboard_is_enough() {
    let server = Server::start(&[]);
    for key in ["a", "b:1", "b:2"] {
        server.put(&format!("/kv/{key}"), key).expect(200, "");
    }
    let Some(mut tab) = open(&server, "") else {
        return;
    };
    wait_for_rows(&mut tab, &["a", "b:"]);
    let focus = |tab: &mut Tab| {
        let focus = tab.evaluate("document.activeElement.id || document.activeElement.ariaLabel");
        focus.as_str().unwrap_or_default().to_owned()
    };
    // To what has this id or label, by nothing but the Tab key. It can be seen where that is.
    let go_to = |tab: &mut Tab, to: &str| {
        for _ in 0..30 {
            tab.press("Tab");
            let focus = focus(tab);
            if focus == to {
                let ring = "(it => getComputedStyle(it.matches('li') ? it.firstChild : it).outlineStyle)(document.activeElement)";
                assert_eq!(tab.evaluate(ring), "solid", "{to}");
                return;
            }
        }
        panic!("the Tab key does not lead to {to}");
    };
    go_to(&mut tab, "a");
    for (key, leads_to) in [
        ("ArrowDown", "b:"),
        ("ArrowUp", "a"),
        ("End", "b:"),
        ("ArrowRight", "b:"),
    ] {
        tab.press(key);
        assert_eq!(focus(&mut tab), leads_to, "{key}");
    }
    wait_for_rows(&mut tab, &["a", "b:", "1", "2"]);
    for (key, leads_to) in [
        ("ArrowRight", "1"),
        ("ArrowDown", "2"),
        ("ArrowDown", "2"),
        ("ArrowLeft", "b:"),
        ("End", "2"),
        ("Home", "a"),
    ] {
        tab.press(key);
        assert_eq!(focus(&mut tab), leads_to, "{key}");
    }
    tab.press("End");
    tab.press("Enter");
    wait_for_message(&mut tab, "b:2 is open");
    assert_eq!(focus(&mut tab), "2");
    go_to(&mut tab, "value");
    tab.write("changed ");
    go_to(&mut tab, "save");
    tab.press("Enter");
    wait_for_message(&mut tab, "b:2 is saved");
    assert!(server.get("/kv/b:2").text().contains("changed "));
    // Escape is no, and so is Enter, unless somebody goes to the other button.
    go_to(&mut tab, "delete");
    for no in ["Escape", "Enter"] {
        tab.press("Enter");
        tab.wait_for("document.querySelector('#sure').open");
        tab.press(no);
        tab.wait_for("!document.querySelector('#sure').open");
        assert_eq!(focus(&mut tab), "delete");
    }
    tab.press(" ");
    tab.wait_for("document.querySelector('#sure').open");
    go_to(&mut tab, "sure-yes");
    tab.press("Enter");
    wait_for_message(&mut tab, "b:2 is deleted");
    server.get("/kv/b:2").expect(404, "key not found\n");
    wait_for_rows(&mut tab, &["a", "b:", "1"]);
    tab.press("ArrowLeft");
    tab.press("ArrowLeft");
    wait_for_rows(&mut tab, &["a", "b:"]);
    tab.expect_peace(&format!("http://{}", server.address));
}

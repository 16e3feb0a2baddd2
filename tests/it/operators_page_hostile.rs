//! What others have put does no harm to the page at `GET /`, nor to whoever looks at it: markup, text that is not what it looks like, huge
//! values, very many keys, and changes that come fast.

use std::fmt::Write;

use serde_json::json;

use crate::devtools::Tab;
use crate::operators_page::{click_row, open, open_key, wait_for_rows};
use crate::process::Server;

/// Puts keys by an import.
fn import(server: &Server, keys: impl Iterator<Item = String>) {
    let mut lines = "{\"threadkv\":1}\n".to_owned();
    let mut count = 0;
    for key in keys {
        writeln!(lines, "{{\"key\":\"{key}\",\"text\":\"v\"}}").unwrap();
        count += 1;
    }
    let hash = hmac_sha256::Hash::hash(lines.as_bytes());
    let sha256: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(
        lines,
        "{}",
        json!({"end": true, "keys": count, "sha256": sha256})
    )
    .unwrap();
    let answer = server.post("/api/v1/import", lines);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Saves what is shown after a change of its first characters, and returns what the server has then.
fn save(tab: &mut Tab, server: &Server, key: &str) -> Vec<u8> {
    tab.click("#save");
    tab.wait_for_text("#message", "is saved");
    server.get(&format!("/kv/{key}")).body
}

#[test]
fn markup_is_text_wherever_it_stands() {
    let server = Server::start(&[]);
    let markup =
        "<img src=x onerror=alert(1)><script>alert(2)</script></textarea><svg onload=alert(3)>&lt;";
    server.put("/kv/text", markup).expect(200, "");
    let body = json!({"value": {markup: [markup]}}).to_string();
    assert_eq!(server.put("/api/v1/kv/json", body).status, 200);
    let Some(mut tab) = open(&server, "#text") else {
        return;
    };
    tab.wait_for("document.querySelector('#value').value !== ''");
    assert_eq!(tab.text("#value"), markup);
    open_key(&mut tab, "json");
    assert_eq!(tab.text("#value"), json!({markup: [markup]}).to_string());
    // In a conflict.
    tab.click("#follow");
    server.put("/kv/json", markup).expect(200, "");
    tab.fill("#value", "1");
    tab.click("#save");
    tab.wait_for("document.querySelector('#conflict').checkVisibility()");
    assert_eq!(tab.text("#conflict-value"), markup);
    tab.click("#conflict-theirs");
    // In the address, and in the prefix.
    for hash in [
        "<img src=x onerror=alert(1)>",
        "%3Cimg%20src%3Dx%3E",
        "%E0%A4%A",
    ] {
        tab.evaluate(&format!("void (location.hash = '{hash}')"));
        tab.wait_for("document.querySelector('#message').className === 'bad'");
        tab.evaluate("document.querySelector('#message').className = ''");
    }
    tab.fill("#prefix", markup);
    tab.wait_for_text("#empty", "No key begins like this");
    assert_eq!(
        tab.evaluate("document.querySelectorAll('img, svg').length"),
        0
    );
    tab.expect_peace(&format!("http://{}", server.address));
    // The browser itself would not let markup in.
    let write = "(() => { try { document.body.innerHTML = '<p>'; } catch (error) { return error.name; } })()";
    assert_eq!(tab.evaluate(write), "TypeError");
}

#[test]
fn text_is_what_it_looks_like_and_stays_as_it_is() {
    let server = Server::start(&[]);
    // Line ends that a text field would change, a bell, and text that is made to run backwards.
    let strange = "a\r\nb\rc\u{7}\u{0}d\u{202e}e\u{2066}\u{feff}";
    server.put("/kv/strange", strange).expect(200, "");
    let arabic = "\u{645}\u{631}\u{62d}\u{628}\u{627}\nhello";
    server.put("/kv/arabic", arabic).expect(200, "");
    server.put("/kv/%2E%2E", "dots").expect(200, "");
    let Some(mut tab) = open(&server, "#strange") else {
        return;
    };
    tab.wait_for("document.querySelector('#value').value !== ''");
    let escaped = r#""a\r\nb\rc\u0007\u0000d\u202ee\u2066\ufeff""#;
    assert_eq!(tab.text("#value"), escaped);
    tab.fill("#value", &escaped.replace("\"a", "\"A"));
    assert_eq!(
        save(&mut tab, &server, "strange"),
        strange.replace('a', "A").as_bytes()
    );
    // Languages that are written from right to left are shown as they are written.
    open_key(&mut tab, "arabic");
    assert_eq!(tab.text("#value"), arabic);
    assert_eq!(save(&mut tab, &server, "arabic"), arabic.as_bytes());

    // Browsers resolve this key in a path.
    wait_for_rows(&mut tab, &["..", "arabic", "strange"]);
    click_row(&mut tab, "..");
    tab.wait_for("document.querySelector('#value').value === 'dots'");
    tab.fill("#value", "changed");
    assert_eq!(save(&mut tab, &server, "%2E%2E"), b"changed");
    tab.click("#delete");
    tab.click("#sure-yes");
    tab.wait_for_text("#message", ".. is deleted");
    wait_for_rows(&mut tab, &["arabic", "strange"]);
    tab.expect_peace(&format!("http://{}", server.address));
}

#[test]
fn a_huge_value_is_a_link() {
    let server = Server::start(&[]);
    server
        .put("/kv/huge", "x".repeat(10_000_000))
        .expect(200, "");
    let Some(mut tab) = open(&server, "#huge") else {
        return;
    };
    tab.wait_for_text("#about", "10.0 MB, too large to be edited here");
    tab.wait_for_text("#raw", "(10.0 MB)");
    assert_eq!(
        tab.evaluate("document.querySelector('#raw').href"),
        format!("http://{}/kv/huge", server.address)
    );
    assert_eq!(
        tab.evaluate("document.querySelector('#value').checkVisibility()"),
        false
    );
    assert_eq!(tab.text("#value"), "");
    tab.click("#delete");
    tab.click("#sure-yes");
    tab.wait_for_text("#message", "huge is deleted");
    server.get("/kv/huge").expect(404, "key not found\n");
    tab.expect_peace(&format!("http://{}", server.address));
}

#[test]
fn very_many_keys_and_changes_leave_it_responsive() {
    let server = Server::start(&[]);
    let keys = (0..100_000).map(|n| format!("k{n:06}"));
    import(
        &server,
        keys.chain((0..100_000).map(|n| format!("g{n:06}:x"))),
    );
    let Some(mut tab) = open(&server, "") else {
        return;
    };
    let rows = "document.querySelectorAll('#tree li').length";
    tab.wait_for(&format!("{rows} === 101"));
    tab.wait_for_text("#f-keys", "200,000");
    // Changes at what is shown, and at what is not.
    import(&server, (0..30_000).map(|n| format!("a{n:06}")));
    import(&server, (0..30_000).map(|n| format!("z{n:06}")));
    tab.wait_for_text("#changes", "z029999");
    let shown = tab.evaluate(rows).as_u64().unwrap();
    assert!(shown <= 201, "{shown}");
    assert_eq!(
        tab.evaluate("document.querySelectorAll('#changes li').length"),
        50
    );
    click_row(&mut tab, "a000000");
    tab.wait_for("document.querySelector('#value').value === 'v'");
    for url in &tab.asked_for {
        assert!(!url.contains("/kv?") || url.contains("limit=100"), "{url}");
    }
    assert_eq!(server.delete("/clear").status, 200);
    tab.wait_for_text("#empty", "There are no keys yet");
    wait_for_rows(&mut tab, &[]);
    tab.expect_peace(&format!("http://{}", server.address));
}

#[test]
fn it_fits_into_400_pixels_by_day_and_by_night() {
    let server = Server::start(&[]);
    let long = "k".repeat(1024);
    server
        .put(&format!("/kv/{long}"), "v".repeat(5000))
        .expect(200, "");
    server
        .put(&format!("/kv/{}", ":".repeat(1024)), "v")
        .expect(200, "");
    let Some(mut tab) = open(&server, &format!("#{long}")) else {
        return;
    };
    tab.resize(400, 800);
    tab.wait_for("document.querySelector('#value').value.length === 5000");
    tab.click("#delete");
    tab.wait_for_text("#sure-text", &long);
    let mut backgrounds = Vec::new();
    for scheme in ["light", "dark"] {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        tab.call("Emulation.setEmulatedMedia", media);
        let fits = "(it => it.scrollWidth <= it.clientWidth)(document.documentElement)";
        assert_eq!(tab.evaluate(fits), true, "{scheme}");
        let wide = "[...document.querySelectorAll('header *, #figures *, form > *, dialog *, #changes')]\
                    .filter(it => it.checkVisibility() && it.getBoundingClientRect().right > 400).map(it => it.outerHTML)";
        assert_eq!(tab.evaluate(wide), json!([]), "{scheme}");
        // Text can be read: the ratio that WCAG 2.2 asks for, 1.4.3.
        let contrast = "[...document.querySelectorAll('h1, h2, p, dt, dd, label, button, .row')].filter(it => it.checkVisibility()).map(it => {
            const parts = color => color.match(/[\\d.]+/g).map(Number);
            const light = color => parts(color).slice(0, 3).map(it => it / 255)
                .map(it => it <= .04045 ? it / 12.92 : ((it + .055) / 1.055) ** 2.4).reduce((sum, it, n) => sum + it * [.2126, .7152, .0722][n], 0);
            let back = it;
            while (back && parts(getComputedStyle(back).backgroundColor)[3] === 0) back = back.parentElement;
            const [a, b] = [getComputedStyle(it).color, getComputedStyle(back).backgroundColor].map(light).sort((a, b) => b - a);
            return (a + .05) / (b + .05);
        }).reduce((a, b) => Math.min(a, b))";
        let contrast = tab.evaluate(contrast).as_f64().unwrap();
        assert!(contrast >= 4.5, "{scheme}: {contrast}");
        backgrounds.push(tab.evaluate("getComputedStyle(document.body).backgroundColor"));
    }
    assert_ne!(backgrounds[0], backgrounds[1]);
    tab.expect_peace(&format!("http://{}", server.address));
}

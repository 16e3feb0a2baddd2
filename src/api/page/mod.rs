//! `GET /`: a page for those who operate the server. It has no data itself, and uses the JSON API as anybody could.
//!
//! The page is one answer that asks for nothing from elsewhere, and no text in it becomes markup. Its `Content-Security-Policy` has the
//! browser enforce both: it runs this very script and this very style, by their hashes, and nothing else.

use std::sync::LazyLock;

use base64::prelude::{BASE64_STANDARD, Engine};
use hmac_sha256::Hash;

use crate::server::{Body, Head, Response};

const STYLE: &str = include_str!("page.css");
const MARKUP: &str = include_str!("page.html");
/// The script, a file a subject. They are one module to the browser.
const SCRIPT: [&str; 5] = [
    include_str!("talk.js"),
    include_str!("tree.js"),
    include_str!("entry.js"),
    include_str!("live.js"),
    include_str!("main.js"),
];

/// A dot, so that browsers ask for no `/favicon.ico`.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'%3E%3Ccircle cx='8' cy='8' r='7' fill='%230b62c4'/%3E%3C/svg%3E";

static PAGE: LazyLock<Page> = LazyLock::new(Page::new);

/// The page as it is sent.
struct Page {
    html: String,
    policy: String,
    /// Its `ETag`: changes with the page.
    tag: String,
}

impl Page {
    fn new() -> Page {
        let (style, script) = (shorten(&[STYLE]), shorten(&SCRIPT));
        let html = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>threadkv</title>\n\
             <link rel=\"icon\" href=\"{ICON}\">\n<style>{style}</style>\n{}<script type=\"module\">{script}</script>\n",
            shorten(&[MARKUP])
        );
        Page {
            policy: format!(
                "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
                 form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
                hash(&script),
                hash(&style)
            ),
            tag: format!("\"{}\"", hash(&html)),
            html,
        }
    }
}

/// Joins files without what is there for readers of the source only: indentation, comments that have a line of their own, empty lines.
fn shorten(files: &[&str]) -> String {
    let lines = files.iter().flat_map(|file| file.lines()).map(str::trim);
    let is_comment = |line: &&str| line.starts_with("//") || line.starts_with("/**");
    let lines = lines.filter(|line| !line.is_empty() && !is_comment(line));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The hash of a text, as a policy names it.
fn hash(text: &str) -> String {
    format!(
        "sha256-{}",
        BASE64_STANDARD.encode(Hash::hash(text.as_bytes()))
    )
}

/// Whether a client that sends this already has the page.
pub(super) fn is_known(head: Head<'_>) -> bool {
    let mut tags = head.headers("If-None-Match").flat_map(|it| it.split(','));
    // Weak tags count like others (RFC 9110, 13.1.2).
    tags.any(|tag| matches!(tag.trim(), "*") || tag.trim().trim_start_matches("W/") == PAGE.tag)
}

/// The page, or that the client has it.
pub(super) fn answer(is_known: bool) -> Response {
    let response = match is_known {
        true => Response::empty(304),
        false => Response::new(200, "text/html; charset=utf-8", Body::Static(&PAGE.html)),
    };
    response
        .with_header("ETag", &*PAGE.tag)
        .with_header("Cache-Control", "no-cache")
        .with_header("Content-Security-Policy", &*PAGE.policy)
        .with_header("Referrer-Policy", "no-referrer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_40_kilobytes_at_most() {
        let bytes = PAGE.html.len();
        assert!((20_000..=40_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn it_asks_for_nothing_from_elsewhere() {
        // The one name in it is that of a namespace.
        let html = PAGE.html.replace("http://www.w3.org/2000/svg", "");
        for text in ["http:", "https:", "'//", "\"//", "@import", "url("] {
            assert!(!html.contains(text), "{text}");
        }
    }

    #[test]
    fn only_what_readers_of_the_source_need_is_left_out() {
        let source = "/** A key. */\n// Why.\nconst a = '//b'; // kept\n\n  c();\n";
        assert_eq!(shorten(&[source]), "const a = '//b'; // kept\nc();\n");
    }
}

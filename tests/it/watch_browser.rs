//! A page that watches with `EventSource`, in a real browser and through a real nginx: it comes back by itself, or by the README's few
//! lines, and nothing is lost and nothing comes twice, whatever happens to the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, unbounded};
use serde_json::Value;

use crate::client::Client;
use crate::directory::Directory;
use crate::nginx::Nginx;
use crate::page::Browser;
use crate::ports::free_address;
use crate::process::{PATIENCE, Server};
use crate::revisions::revision;
use crate::watch::state;

/// The page that watches, and what it tells.
struct Watching {
    site: Arc<tiny_http::Server>,
    reports: Receiver<Value>,
    browser: Browser,
    nginx: Nginx,
}

impl Watching {
    /// Opens a page that watches what a query asks for.
    fn open(server: SocketAddr, query: &str) -> Option<Watching> {
        let site = Arc::new(tiny_http::Server::http("127.0.0.1:0").unwrap());
        let address = site.server_addr().to_ip().unwrap();
        let nginx = Nginx::start(server, &["/page", "/report"], address)?;
        let (news, reports) = unbounded();
        let (pages, page) = (Arc::clone(&site), page());
        thread::spawn(move || {
            for mut request in pages.incoming_requests() {
                let mut answer = String::new();
                if request.url() == "/report" {
                    let all: Vec<Value> = serde_json::from_reader(request.as_reader()).unwrap();
                    for one in all {
                        let _ = news.send(one); // or the test is over
                    }
                } else {
                    answer.clone_from(&page);
                }
                let html = "Content-Type: text/html".parse::<tiny_http::Header>();
                let answer = tiny_http::Response::from_string(answer).with_header(html.unwrap());
                let _ = request.respond(answer);
            }
        });
        let browser = Browser::open(&format!("http://{}/page?{query}", nginx.address))?;
        Some(Watching {
            site,
            reports,
            browser,
            nginx,
        })
    }

    /// What the page tells next.
    fn next(&self) -> Value {
        self.reports
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.browser.log(), self.nginx.log()))
    }

    /// Waits until the page tells this; returns the changes that it has been told before.
    fn until(&self, mut wanted: impl FnMut(&Value) -> bool) -> Vec<(String, u64)> {
        let mut changes = Vec::new();
        loop {
            let told = self.next();
            if let Some(name) = told["name"].as_str().filter(|name| *name != "ready") {
                let revision = told["data"]["revision"].as_u64().unwrap();
                changes.push((name.to_owned(), revision));
            }
            if wanted(&told) {
                return changes;
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.site.unblock();
    }
}

/// The page with the lines that the README gives to those who watch from a browser.
fn page() -> String {
    let readme = include_str!("../../README.md");
    let start = readme
        .find("function watch(")
        .expect("the README's function");
    let end = start + readme[start..].find("\n}\n").expect("its end") + 3;
    include_str!("watch.html").replace("/* README's function */", &readme[start..end])
}

/// Puts some values, and returns their revisions.
fn put_some(client: &mut Client) -> Vec<u64> {
    let put = |n| revision(&client.send("PUT", &format!("/kv/k{n}"), "v"));
    (0..20).map(put).collect()
}

#[test]
fn a_page_misses_nothing_while_the_server_is_restarted_and_killed() {
    let directory = Directory::new();
    let address = free_address();
    let port = address.port().to_string();
    let start = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_threadkv"));
        command.args(["--port", &port, "--working-dir", directory.path_str()]);
        Server::spawn(command)
    };
    let mut server = start();
    let mut client = server.connect();
    let mut written = vec![];
    let query = format!("since={}", state(&mut client));
    written.extend(put_some(&mut client));
    let Some(page) = Watching::open(address, &query) else {
        return;
    };
    let is_ready = |told: &Value| told["name"] == "ready";
    let mut told = page.until(is_ready);
    let (mut given_up, mut broken) = (0, 0);
    for round in 0..4 {
        written.extend(put_some(&mut client));
        // Half of the time they are still on their way.
        let last = *written.last().unwrap();
        if round % 2 == 0 {
            told.extend(page.until(|told| told["data"]["revision"] == last));
        }
        if round % 3 == 0 {
            server.signal("-TERM");
            server.wait();
        } else {
            server.kill();
        }
        if round < 2 {
            // It is there again before the browser is.
            server = start();
        } else {
            // nginx answers 502, so the browser gives up, and the page has to begin anew.
            told.extend(page.until(|told| told == "given up"));
            given_up += 1;
            server = start();
        }
        client = server.connect();
        // These it has not seen.
        written.extend(put_some(&mut client));
        told.extend(page.until(|told| {
            broken += usize::from(told == "broken");
            given_up += usize::from(told == "given up");
            is_ready(told)
        }));
    }
    let last = *written.last().unwrap();
    if told.last().map(|(_, revision)| *revision) != Some(last) {
        told.extend(page.until(|told| told["data"]["revision"] == last));
    }
    let expected = written.iter().map(|revision| ("put".to_owned(), *revision));
    assert_eq!(told, expected.collect::<Vec<_>>());
    assert!(broken > 0 && given_up >= 2, "{broken} {given_up}");
}

#[test]
fn a_page_that_begins_with_what_is_there_is_told_to_forget_it() {
    let address = free_address();
    let port = address.port().to_string();
    // In memory, so that the next life knows nothing of this one.
    let start = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_threadkv"));
        command.args(["--port", &port]);
        Server::spawn(command)
    };
    for gives_up in [false, true] {
        let mut server = start();
        let first = revision(&server.put("/kv/a", "v"));
        let Some(page) = Watching::open(address, "initial=true") else {
            return;
        };
        let is_ready = |told: &Value| told["name"] == "ready";
        assert_eq!(page.until(is_ready), [("put".to_owned(), first)]);
        server.kill();
        if gives_up {
            page.until(|told| told == "given up");
        }
        server = start();
        let second = revision(&server.put("/kv/b", "v"));
        let mut told = page.until(|told| is_ready(told) || told["name"] == "put");
        let told = told.drain(..).map(|(name, _)| name);
        // It may have been back before the write.
        let reset = told.take_while(|name| name != "put").collect::<Vec<_>>();
        assert_eq!(reset, ["reset"], "given up: {gives_up}; {second}");
    }
}

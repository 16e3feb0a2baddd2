//! A page in a real browser, of an origin of its own: it sends the requests that a test tells it to.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::Response;
use crate::directory::Directory;
use crate::process::{PATIENCE, Server};
use crate::programs;

/// A page that headless Chromium shows. The browser ends when this is dropped.
pub struct Page {
    /// What the browser calls this page's origin, different for each.
    pub origin: String,
    requests: Sender<Value>,
    reports: Receiver<Option<Report>>,
    browser: Browser,
}

/// What the browser let the page see of an answer.
#[derive(Deserialize)]
#[serde(untagged)]
enum Report {
    Answer {
        status: u16,
        headers: HashMap<String, String>,
        body: String,
    },
    Refusal {
        refused: String,
    },
}

impl Page {
    /// Opens a page, or says that there is no browser, which is a failure where [`programs::REQUIRED`] is set.
    pub fn open() -> Option<Page> {
        let site = tiny_http::Server::http("127.0.0.1:0").unwrap();
        let origin = format!("http://{}", site.server_addr());
        let browser = Browser::open(&origin)?;
        let (requests, to_send) = bounded(0);
        let (sent, reports) = bounded(0);
        thread::spawn(move || serve(&site, &to_send, &sent));
        let page = Page {
            origin,
            requests,
            reports,
            browser,
        };
        assert!(page.report().is_none(), "a report before a request");
        Some(page)
    }

    /// Sends a request with `fetch`. An answer has those headers that the page may read; an error is the name of the
    /// exception, where the browser tells the page nothing.
    pub fn fetch(
        &self,
        server: &Server,
        headers: Value,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<Response, String> {
        let url = format!("http://{}{path}", server.address);
        let mut request = json!({"url": url, "method": method, "headers": headers});
        if !body.is_empty() {
            request["body"] = body.into();
        }
        self.requests.send_timeout(request, PATIENCE).unwrap();
        match self.report().expect("a report") {
            Report::Answer {
                status,
                headers,
                body,
            } => Ok(Response {
                status,
                headers,
                body: body.into(),
            }),
            Report::Refusal { refused } => Err(refused),
        }
    }

    fn report(&self) -> Option<Report> {
        self.reports
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|error| panic!("{error}: {}", self.browser.log()))
    }
}

/// Serves the page, takes its reports and hands it requests, until the test is done with it.
fn serve(site: &tiny_http::Server, requests: &Receiver<Value>, reports: &Sender<Option<Report>>) {
    for mut request in site.incoming_requests() {
        let answer = if request.url() == "/next" {
            let report = serde_json::from_reader(request.as_reader()).unwrap();
            if reports.send(report).is_err() {
                return;
            }
            match requests.recv() {
                Ok(next) => next.to_string(),
                Err(_) => return,
            }
        } else {
            include_str!("page.html").to_owned()
        };
        let html = "Content-Type: text/html".parse::<tiny_http::Header>();
        let answer = tiny_http::Response::from_string(answer).with_header(html.unwrap());
        let _ = request.respond(answer);
    }
}

/// A browser process with all its children, and what it writes. Killed when dropped.
pub struct Browser {
    child: Child,
    directory: Directory,
}

impl Browser {
    /// Shows a page.
    pub fn open(url: &str) -> Option<Browser> {
        let mut command = Command::new("chromium");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Browser::start(command, url)
    }

    /// Starts a browser that is driven through two pipes.
    pub fn drive() -> Option<(Browser, ChildStdin, ChildStdout)> {
        let mut command = Command::new("sh");
        // Chromium reads from descriptor 3 and writes to 4.
        command
            .args([
                "-c",
                r#"exec chromium "$@" 3<&0 4>&1 </dev/null >/dev/null"#,
            ])
            .args(["chromium", "--remote-debugging-pipe"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut browser = Browser::start(command, "about:blank")?;
        let child = &mut browser.child;
        let pipes = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Some((browser, pipes.0, pipes.1))
    }

    /// Starts a command that is chromium, or becomes it with the arguments that are added here. Says so if there is none, which is a
    /// failure where [`programs::REQUIRED`] is set.
    fn start(mut command: Command, url: &str) -> Option<Browser> {
        if !programs::has("chromium", "chromium", "a page in a browser") {
            return None;
        }
        let directory = Directory::new();
        let log = File::create(directory.path().join("log")).unwrap();
        command
            // Root has to do without the sandbox; there is nothing to see but our own page.
            .args(["--headless", "--no-sandbox", "--disable-gpu"])
            .args(["--no-first-run", "--disable-dev-shm-usage"])
            // There is no other network than this machine's own.
            .args([
                "--proxy-server=direct://",
                "--disable-background-networking",
            ])
            .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
            .args(["--disable-component-update", "--disable-sync"])
            .args(["--disable-breakpad", "--disable-extensions"])
            .arg(format!("--user-data-dir={}", directory.path_str()))
            .arg(url)
            .env("HOME", directory.path())
            .stderr(log)
            .process_group(0);
        match command.spawn() {
            Ok(child) => Some(Browser { child, directory }),
            Err(error) => panic!("chromium cannot be started: {error}"),
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

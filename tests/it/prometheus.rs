//! The real `promtool` and the real Prometheus, and the metrics of a server as they read them.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::client::{Client, Response};
use crate::directory::Directory;
use crate::ports::free_address;
use crate::process::{Server, wait_for};
use crate::programs;

/// Whether a program of Debian's package `prometheus` is there; says so if not.
pub fn has(program: &str) -> bool {
    programs::has(program, "prometheus", "reading metrics as Prometheus does")
}

/// What `promtool` has against the metrics of an answer; empty if there is nothing.
pub fn complaints(metrics: &Response) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(&metrics.body).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    said
}

/// Samples by name with labels, as they are written.
pub struct Metrics(HashMap<String, f64>);

impl Metrics {
    pub fn of(server: &Server) -> Metrics {
        Metrics::read(&server.get("/metrics"))
    }

    pub fn read(answer: &Response) -> Metrics {
        assert_eq!(answer.status, 200);
        let lines = answer.text().lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        };
        Metrics(lines.map(sample).collect())
    }

    /// The value of a sample; 0 where there is none.
    pub fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The sum of all samples of a family.
    pub fn sum(&self, family: &str) -> f64 {
        let of_family = |name: &&String| {
            let rest = name.strip_prefix(family);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
        };
        let names = self.0.keys().filter(of_family);
        names.map(|name| self.0[name]).sum()
    }

    /// How many requests of an operation had that status.
    pub fn requests(&self, api: &str, operation: &str, code: u16) -> f64 {
        self.get(&format!(
            "threadkv_http_requests_total{{api=\"{api}\",operation=\"{operation}\",code=\"{code}\"}}"
        ))
    }
}

/// A Prometheus that scrapes a server once a second. Killed when dropped.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts it. `more` are further lines of its configuration about this server.
    pub fn scraping(server: SocketAddr, more: &str, directory: &Directory) -> Prometheus {
        let config = directory.path().join("prometheus.yml");
        let lines = format!(
            "global:\n  scrape_interval: 1s\nscrape_configs:\n- job_name: threadkv\n{more}  \
             static_configs:\n  - targets: ['{server}']\n"
        );
        fs::write(&config, lines).unwrap();
        let address = free_address();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Prometheus { child, address }
    }

    /// Waits until it knows a value for an expression, of which `judge` approves.
    pub fn wait_for(&self, expression: &str, judge: impl Fn(f64) -> bool) -> f64 {
        wait_for(expression, || {
            let path = format!(
                "/api/v1/query?query={}",
                percent_encoding::utf8_percent_encode(
                    expression,
                    percent_encoding::NON_ALPHANUMERIC
                )
            );
            let mut client = Client::try_connect(self.address).ok()?;
            let answer = client.send("GET", &path, "");
            let answer: Value = serde_json::from_slice(&answer.body).ok()?;
            let value = answer["data"]["result"][0]["value"][1].as_str()?.parse();
            value.ok().filter(|value| judge(*value))
        })
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! Several nodes over an etcd that speaks TLS and wants to know who asks. Only with the feature `tls`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::directory::Directory;
use crate::etcd::has_etcd;
use crate::ports::free_address;
use crate::process::{Server, wait_for};
use crate::programs;

/// Certificates, and an etcd that takes only them.
struct Secure {
    directory: Directory,
    url: String,
    etcd: Child,
}

impl Secure {
    fn start() -> Secure {
        let directory = Directory::new();
        certificates(&directory);
        for _ in 0..20 {
            let (client, peer) = (free_address(), free_address());
            let url = format!("https://{client}");
            let peer = format!("http://{peer}");
            let log = File::create(directory.path().join("log")).unwrap();
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "etcd", "--name", "m0"]);
            command.args(["--data-dir", "data", "--log-level", "error"]);
            command.args([
                "--listen-client-urls",
                &url,
                "--advertise-client-urls",
                &url,
            ]);
            command.args(["--listen-peer-urls", &peer]);
            command.args(["--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &format!("m0={peer}")]);
            command.args(["--cert-file", "etcd.pem", "--key-file", "etcd.key"]);
            command.args(["--trusted-ca-file", "ca.pem", "--client-cert-auth"]);
            command
                .current_dir(directory.path())
                .stderr(log)
                .stdout(Stdio::null());
            let mut etcd = command.spawn().unwrap();
            let healthy = wait_for("etcd", || {
                if etcd.try_wait().unwrap().is_some() {
                    return Some(false);
                }
                let mut ask = Command::new("etcdctl");
                ask.env("ETCDCTL_API", "3")
                    .args(["--endpoints", &url, "get", "a"]);
                ask.args([
                    "--cacert", "ca.pem", "--cert", "node.pem", "--key", "node.key",
                ]);
                let asked = ask.current_dir(directory.path()).output().unwrap();
                asked.status.success().then_some(true)
            });
            // Somebody else may have taken one of the ports.
            if healthy {
                return Secure {
                    directory,
                    url,
                    etcd,
                };
            }
        }
        panic!("no ports for etcd");
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().into()
    }

    /// The options of a node with that certificate, which trusts those who are vouched for by `ca`.
    fn options(&self, ca: &str, client: Option<&str>) -> Vec<String> {
        let mut options = vec!["--cluster".into(), self.url.clone()];
        options.extend(["--cluster-ca".into(), self.file(ca)]);
        if let Some(name) = client {
            options.extend(["--cluster-cert".into(), self.file(&format!("{name}.pem"))]);
            options.extend(["--cluster-key".into(), self.file(&format!("{name}.key"))]);
        }
        options
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        let _ = self.etcd.kill();
        let _ = self.etcd.wait();
    }
}

/// Makes two authorities, `ca` and `other`, and what the first one vouches for: etcd's certificate and a node's.
fn certificates(directory: &Directory) {
    let openssl = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(arguments).current_dir(directory.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    };
    // A certificate that vouches for itself, or one for which `ca` vouches.
    let make = |name: &str, extension: &str, by: &[&str]| {
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        let subject = format!("/CN={name}");
        let own = [
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            &subject,
            "-addext",
            extension,
            "-keyout",
            &key,
            "-out",
            &certificate,
        ];
        openssl(&[&own, by].concat());
    };
    let by = [
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ];
    make("ca", "keyUsage=keyCertSign", &[]);
    make("other", "keyUsage=keyCertSign", &[]);
    make("etcd", "subjectAltName=IP:127.0.0.1", &by);
    make("node", "extendedKeyUsage=clientAuth", &by);
    fs::write(directory.path().join("text"), "no certificate").unwrap();
}

fn has_all() -> bool {
    has_etcd() && programs::has("openssl", "openssl", "an etcd with TLS")
}

#[test]
fn nodes_talk_to_an_etcd_that_wants_to_know_who_asks() {
    if !has_all() {
        return;
    }
    let etcd = Secure::start();
    let options = etcd.options("ca.pem", Some("node"));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let (one, other) = (Server::start(&options), Server::start(&options));
    let value = "v".repeat(1 << 20);
    for value in ["v", &value] {
        one.put("/kv/k", value).expect(200, "");
        other.get("/kv/k").expect(200, value);
    }
}

#[test]
fn nobody_is_trusted_for_whom_nobody_vouches() {
    if !has_all() {
        return;
    }
    let etcd = Secure::start();
    for (ca, client, why) in [
        ("other.pem", Some("node"), "invalid peer certificate"),
        // etcd refuses these, and closes; whether its reason comes before that is chance.
        ("ca.pem", None, ""),
        ("ca.pem", Some("other"), ""),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_threadkv"));
        command.args(["--port", "0"]).args(etcd.options(ca, client));
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let waits = lines.find(|line| line.as_ref().unwrap().contains("waiting for etcd"));
        child.kill().unwrap();
        child.wait().unwrap();
        let waits = waits.unwrap().unwrap();
        assert!(waits.contains(&etcd.url) && waits.contains(why), "{waits}");
    }
}

#[test]
fn a_file_that_is_no_good_is_one_line_that_names_it() {
    if !has_all() {
        return;
    }
    let directory = Directory::new();
    certificates(&directory);
    let file = |name: &str| -> PathBuf { directory.path().join(name) };
    for (ca, certificate, key, culprit, why) in [
        ("none", "node.pem", "node.key", "none", "No such file"),
        ("text", "node.pem", "node.key", "text", "no certificate"),
        (
            "ca.pem",
            "node.key",
            "node.key",
            "node.key",
            "no certificate",
        ),
        ("ca.pem", "node.pem", "node.pem", "node.pem", "private key"),
        (
            "ca.pem",
            "node.pem",
            "other.key",
            "other.key",
            "KeyMismatch",
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_threadkv"));
        command.args(["--port", "0", "--cluster", "https://127.0.0.1:1"]);
        command.arg("--cluster-ca").arg(file(ca));
        command.arg("--cluster-cert").arg(file(certificate));
        command.arg("--cluster-key").arg(file(key));
        let (status, said) = Server::try_spawn(command).err().unwrap();
        let last = said.last().unwrap();
        assert_eq!(status.code(), Some(1), "{said:?}");
        assert!(
            last.contains(file(culprit).to_str().unwrap()) && last.contains(why),
            "{said:?}"
        );
    }
}

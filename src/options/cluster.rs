//! `--cluster` and what belongs to it.

use std::path::PathBuf;

use super::args::Args;
use crate::etcd::TlsFiles;

/// How to be a node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Where etcd is.
    pub endpoints: Vec<String>,
    /// What the keys in etcd begin with.
    pub prefix: String,
    /// The user of etcd, and the file with the password.
    pub user: Option<(String, PathBuf)>,
    /// Who vouches for etcd, and for this node.
    pub tls: TlsFiles,
}

/// The largest value in a cluster, in bytes, and how large they may be unless it is said: etcd takes little more in one request.
pub(super) const MAX_VALUE_BYTES: u64 = 1 << 20;

/// The length of the log in etcd from which on a snapshot replaces it, in bytes, unless another one is asked for: 64 MiB.
pub(super) const SNAPSHOT_AFTER: u64 = 64 << 20;

/// Checks these options. `None` without `--cluster`.
pub(super) fn cluster(args: &Args) -> Result<Option<Cluster>, String> {
    let Some(urls) = &args.cluster else {
        let others = [
            ("--cluster-prefix", args.cluster_prefix.is_some()),
            ("--cluster-user", args.cluster_user.is_some()),
            (
                "--cluster-password-file",
                args.cluster_password_file.is_some(),
            ),
            ("--cluster-ca", args.cluster_ca.is_some()),
            ("--cluster-cert", args.cluster_cert.is_some()),
            ("--cluster-key", args.cluster_key.is_some()),
        ];
        return match others.iter().find(|(_, given)| *given) {
            Some((option, _)) => Err(format!("{option} without --cluster: say where etcd is")),
            None => Ok(None),
        };
    };
    if args.working_dir.is_some() {
        return Err(
            "--working-dir beside --cluster: etcd keeps the data; leave one of them out".into(),
        );
    }
    if args.peers.is_some() {
        return Err("--peers beside --cluster: leave one of them out".into());
    }
    let endpoints: Result<Vec<String>, String> = urls.split(',').map(endpoint).collect();
    let user = match (&args.cluster_user, &args.cluster_password_file) {
        (Some(user), Some(file)) => Some((user.clone(), file.clone())),
        (None, None) => None,
        _ => return Err("--cluster-user and --cluster-password-file: give both or none".into()),
    };
    let endpoints = endpoints?;
    let tls = TlsFiles {
        ca: args.cluster_ca.clone(),
        client: match (&args.cluster_cert, &args.cluster_key) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            _ => return Err("--cluster-cert and --cluster-key: give both or none".into()),
        },
    };
    let plain = endpoints.iter().find(|it| !it.starts_with("https://"));
    if let Some(plain) = plain.filter(|_| tls != TlsFiles::default()) {
        return Err(format!(
            "--cluster {plain:?} beside --cluster-ca, --cluster-cert or --cluster-key: these are for https://"
        ));
    }
    Ok(Some(Cluster {
        endpoints,
        prefix: args.cluster_prefix.clone().unwrap_or("threadkv/".into()),
        user,
        tls,
    }))
}

/// A URL of a host and a port, without a path.
fn endpoint(url: &str) -> Result<String, String> {
    let url = url.trim().trim_end_matches('/');
    let authority = match url.strip_prefix("https://") {
        Some(_) if !cfg!(feature = "tls") => {
            return Err(format!(
                "--cluster {url:?}: TLS to etcd is not in this build; build it with --features tls"
            ));
        }
        Some(authority) => Some(authority),
        None => url.strip_prefix("http://"),
    };
    let port = authority.and_then(|it| it.rsplit_once(':'));
    let port = port.filter(|(host, _)| !host.is_empty() && !host.contains(['/', '?', '@', ' ']));
    match port.map(|(_, port)| port.parse::<u16>()) {
        Some(Ok(1..)) => Ok(url.into()),
        _ => Err(format!(
            "--cluster {url:?}: expected members of etcd such as http://127.0.0.1:2379,http://127.0.0.1:22379"
        )),
    }
}

#[cfg(test)]
mod tests {
    use argh::FromArgs;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Option<Cluster>, String> {
        cluster(&Args::from_args(&["threadkv"], arguments).unwrap())
    }

    #[test]
    fn members_of_etcd_are_urls_with_a_port() {
        let parsed = parse(&["--cluster", "http://127.0.0.1:2379, http://etcd-2:22379/"]);
        let parsed = parsed.unwrap().unwrap();
        assert_eq!(
            parsed.endpoints,
            ["http://127.0.0.1:2379", "http://etcd-2:22379"]
        );
        assert_eq!((&*parsed.prefix, parsed.user), ("threadkv/", None));
        for wrong in [
            "127.0.0.1:2379",
            "http://127.0.0.1",
            "http://:2379",
            "http://a:0",
            "http://a:99999",
            "http://a/b:1",
            "http://a:1,,http://b:1",
        ] {
            let error = parse(&["--cluster", wrong]).unwrap_err();
            assert!(error.starts_with("--cluster \""), "{error}");
        }
    }

    #[test]
    fn options_that_do_not_go_together_are_refused() {
        let url = ["--cluster", "http://127.0.0.1:2379"];
        for (others, culprit) in [
            (&["--working-dir", "data"][..], "--working-dir"),
            (&["--peers", ":1,:2"][..], "--peers"),
            (&["--cluster-user", "u"][..], "--cluster-user"),
        ] {
            let error = parse(&[&url, others].concat()).unwrap_err();
            assert!(error.starts_with(culprit), "{error}");
        }
        let error = parse(&["--cluster-prefix", "p"]).unwrap_err();
        assert_eq!(
            error,
            "--cluster-prefix without --cluster: say where etcd is"
        );
        let both = ["--cluster-user", "u", "--cluster-password-file", "f"];
        let user = parse(&[&url, &both[..]].concat()).unwrap().unwrap().user;
        assert_eq!(user, Some(("u".into(), "f".into())));
        assert_eq!(parse(&[]), Ok(None));
    }

    #[test]
    #[cfg(not(feature = "tls"))]
    fn without_tls_it_is_said_what_to_build() {
        let error = parse(&["--cluster", "https://127.0.0.1:2379"]).unwrap_err();
        assert!(error.contains("--features tls"), "{error}");
    }

    #[test]
    fn files_for_tls_go_with_https() {
        for (options, why) in [
            (&["--cluster-ca", "ca"][..], "these are for https://"),
            (&["--cluster-cert", "c"], "give both or none"),
            (&["--cluster-key", "k"], "give both or none"),
        ] {
            let url = ["--cluster", "http://127.0.0.1:2379"];
            let error = parse(&[&url, options].concat()).unwrap_err();
            assert!(error.ends_with(why), "{error}");
            let error = parse(options).unwrap_err();
            assert!(error.contains("without --cluster"), "{error}");
        }
    }
}

//! A real nginx before a server, as the README sets it up.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{env, iter};

use crate::directory::Directory;
use crate::ports::free_address;
use crate::process::wait_for;
use crate::programs::REQUIRED;

/// The proxy. Killed when dropped.
pub struct Nginx {
    child: Child,
    pub address: SocketAddr,
    directory: Directory,
}

impl Nginx {
    /// Passes everything to `server`, but what begins with `own` to `site`. Says so where there is no nginx, which is a failure where
    /// [`REQUIRED`] is set.
    #[expect(
        clippy::print_stderr,
        reason = "whoever asks for a test's output should see it"
    )]
    pub fn start(server: SocketAddr, own: &[&str], site: SocketAddr) -> Option<Nginx> {
        let directory = Directory::new();
        let address = free_address();
        let settings = settings(&directory, address, server, own, site);
        let file = directory.path().join("nginx.conf");
        fs::write(&file, settings).unwrap();
        let log = File::create(directory.path().join("stderr")).unwrap();
        let mut command = Command::new(program());
        command
            .arg("-e")
            .arg(directory.path().join("error.log"))
            .arg("-c")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && env::var_os(REQUIRED).is_none() =>
            {
                eprintln!("SKIPPED: a proxy takes nginx");
                return None;
            }
            Err(error) => panic!("nginx cannot be started: {error}"),
        };
        let mut nginx = Nginx {
            child,
            address,
            directory,
        };
        wait_for("nginx to listen", || {
            assert!(nginx.child.try_wait().unwrap().is_none(), "{}", nginx.log());
            TcpStream::connect(address).ok()
        });
        Some(nginx)
    }

    pub fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.directory.path().join(name));
        ["stderr", "error.log"]
            .map(|name| read(name).unwrap_or_default())
            .concat()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The README's settings, without what takes a name and a certificate.
fn settings(
    directory: &Directory,
    address: SocketAddr,
    server: SocketAddr,
    own: &[&str],
    site: SocketAddr,
) -> String {
    let path = directory.path().display();
    let own = own
        .iter()
        .map(|path| format!("location {path} {{ proxy_pass http://{site}; }}\n"));
    let own: String = own.collect();
    format!(
        "daemon off;
         master_process off;
         pid {path}/nginx.pid;
         events {{ worker_connections 1000; }}
         http {{
             access_log off;
             client_body_temp_path {path}/body;
             proxy_temp_path {path}/proxy;
             fastcgi_temp_path {path}/fastcgi;
             uwsgi_temp_path {path}/uwsgi;
             scgi_temp_path {path}/scgi;
             limit_conn_zone $binary_remote_addr zone=clients:10m;
             upstream threadkv {{
                 server {server};
                 keepalive 64;
                 keepalive_timeout 60s;
             }}
             server {{
                 listen {address};
                 client_max_body_size 21m;
                 limit_conn clients 100;
                 {own}
                 location / {{
                     proxy_pass http://threadkv;
                     proxy_http_version 1.1;
                     proxy_set_header Connection \"\";
                     proxy_set_header Host $http_host;
                 }}
             }}
         }}"
    )
}

/// Some systems have it where only root looks.
fn program() -> &'static Path {
    let found = iter::once("/usr/sbin/nginx")
        .map(Path::new)
        .find(|it| it.is_file());
    found.unwrap_or(Path::new("nginx"))
}

//! A container without a distribution: the server is process 1 and nobody's user, its root cannot be written to, and holds only the
//! program, so no `/proc`, no `/dev`, no `/etc`. Here it is made of namespaces, as container runtimes make it.

use std::env;
use std::fs;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::directory::Directory;
use crate::process::{Server, forget_own_settings};
use crate::programs::REQUIRED;
use crate::shutdown::upload;

/// Names a static binary to be tested instead of the usual one, which needs libraries.
const STATIC: &str = "TESTS_STATIC_BINARY";

/// Where the root is built, and the data.
struct Container {
    root: Directory,
    data: Option<Directory>,
}

impl Container {
    fn new(data: Option<Directory>) -> Container {
        let root = Directory::new();
        Container { root, data }
    }

    /// What runs the program in a root of its own. `unshare` is outside and has one child, which becomes the program.
    fn command(&self, arguments: &[&str]) -> Command {
        let program = env::var(STATIC);
        let program = program.unwrap_or(env!("CARGO_BIN_EXE_threadkv").into());
        let data = self.data.as_ref().map_or("", Directory::path_str);
        let mut command = Command::new("unshare");
        command
            .args([
                "--user",
                "--map-root-user",
                "--mount",
                "--pid",
                "--fork",
                "sh",
                "-ec",
                BUILD,
            ])
            .args([self.root.path_str(), data, &program])
            .args(arguments);
        forget_own_settings(&mut command);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn start(&self, options: &[&str]) -> Contained {
        let mut command = self.command(&["--port=0"]);
        command.args(options);
        let server = Server::spawn(command);
        let unshare = server.pid();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"));
        let pid = children.unwrap().trim().parse().unwrap();
        Contained { server, pid }
    }
}

/// Builds the root, and becomes the program in it: `$0` is where the root is, `$1` its data, if any, `$2` the program. The root is a disk in
/// memory, which goes with the last process that sees it. What `ldd` names are the libraries that the program needs, if any.
const BUILD: &str = r#"
root=$0 data=$1 program=$2
shift 2
mount -t tmpfs tmpfs "$root"
cp "$program" "$root/threadkv"
for library in $(ldd "$program" 2>/dev/null | grep -o '/[^ ]*'); do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
if test -n "$data"; then
    mkdir "$root/data"
    mount --bind "$data" "$root/data"
fi
mount -o remount,ro "$root"
exec unshare --user --map-user=65534 --map-group=65534 --root="$root" --wd=/ /threadkv "$@"
"#;

/// A server in a container. Killed when dropped, since the end of `unshare` would leave it.
struct Contained {
    server: Server,
    /// As it is called outside.
    pid: u32,
}

impl Contained {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid as i32).unwrap();
        let _ = kill_process(pid, signal); // it may have ended
    }

    fn status(&self, field: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let mut lines = status.lines();
        lines
            .find_map(|line| line.strip_prefix(field))
            .unwrap()
            .trim()
            .into()
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        if !self.server.has_ended() {
            self.signal(Signal::KILL);
        }
    }
}

/// Whether this user may have namespaces; says so if not.
#[expect(
    clippy::print_stderr,
    reason = "whoever asks for a test's output should see it"
)]
fn can_be_contained() -> bool {
    let mut command = Command::new("unshare");
    let command = command.args([
        "--user",
        "--map-root-user",
        "--mount",
        "--pid",
        "--fork",
        "true",
    ]);
    let output = command.stdin(Stdio::null()).output();
    if output.as_ref().is_ok_and(|output| output.status.success()) {
        return true;
    }
    assert!(env::var_os(REQUIRED).is_none(), "no namespaces: {output:?}");
    eprintln!("SKIPPED: a container takes namespaces, which are not permitted here: {output:?}");
    false
}

#[test]
fn with_nothing_but_the_program_and_its_data_it_serves_and_stops_as_process_1() {
    if !can_be_contained() {
        return;
    }
    let container = Container::new(Some(Directory::new()));
    let options = ["--working-dir=/data/store", "--log-level=debug"];
    let mut contained = container.start(&options);
    // It is where it should be.
    assert!(contained.status("NSpid:").ends_with("\t1"));
    let refused = container.run(&["token", "create", "--file=/tokens"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("Read-only file system"), "{said}");
    assert!(
        contained
            .server
            .has_seen("where /proc/meminfo cannot be read")
    );

    let server = &mut contained.server;
    server.put("/kv/a", "1").expect(200, "");
    server.get("/kv/a").expect(200, "1");
    server.get("/readyz").expect(200, "ok\n");
    assert_eq!(server.get("/metrics").status, 200);
    let port = server.address.port().to_string();
    let health = container.run(&["health", "--port", &port]);
    assert!(health.status.success(), "{health:?}");

    // The kernel keeps signals from process 1 that it has no handler for.
    let mut upload = upload(server);
    contained.signal(Signal::TERM);
    contained.server.wait_for_log("SIGTERM: draining");
    let health = container.run(&["health", "--port", &port]);
    assert_eq!(health.status.code(), Some(1), "{health:?}");
    upload.write("v".repeat(500_000));
    upload.read("PUT").expect(200, "");
    let (status, log) = contained.server.wait();
    assert_eq!(status.code(), Some(0), "{log:?}");

    let again = container.start(&options);
    again.server.get("/kv/a").expect(200, &"v".repeat(500_000));
}

#[test]
fn data_in_memory_needs_nothing_that_can_be_written_to() {
    if !can_be_contained() {
        return;
    }
    let container = Container::new(None);
    let mut contained = container.start(&[]);
    contained
        .server
        .put("/kv/a", "v".repeat(1_000_000))
        .expect(200, "");
    contained.signal(Signal::HUP);
    contained.server.wait_for_log("SIGHUP: neither");
    let _upload = upload(&contained.server);
    contained.signal(Signal::INT);
    contained.server.wait_for_log("draining");
    contained.signal(Signal::TERM);
    assert_eq!(contained.server.wait().0.code(), Some(128 + 15));
}

#[test]
fn a_working_directory_that_cannot_be_made_is_named() {
    if !can_be_contained() {
        return;
    }
    let output = Container::new(None).run(&["--port=0", "--working-dir=/data"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("/data") && said.contains("Read-only file system"),
        "{said}"
    );
}

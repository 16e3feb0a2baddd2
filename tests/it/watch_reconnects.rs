//! Leaving and coming back, a thousand times, while others write and the server is restarted and killed: nothing is lost, nothing comes
//! twice, and no commit is split.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Client;
use crate::directory::Directory;
use crate::faults::Random;
use crate::process::{Server, wait_for};
use crate::revisions::revision;
use crate::watch::state;
use crate::watcher::{Event, Mirror, Watcher};

const CONNECTIONS: u64 = 1000;
const WATCHERS: u64 = 4;
const WRITERS: u64 = 3;
/// Keys of a bulk write.
const BULK: usize = 5;
/// Every other time it is told to end, and else it is killed.
const RESTARTS: u64 = 6;

/// Between the writes of one writer, so that history and watchers have to do with many commits, and not only with them.
const PACE: Duration = Duration::from_millis(1);

/// Pause before connecting again to a server that is not there.
const AGAIN: Duration = Duration::from_millis(5);

/// What writers and watchers share.
struct Shared {
    /// Where the server is at the moment.
    address: Mutex<SocketAddr>,
    stop: AtomicBool,
    /// How many times watchers have connected.
    connected: AtomicU64,
}

impl Shared {
    fn address(&self) -> SocketAddr {
        *self.address.lock().unwrap()
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A commit: what each of its keys has since.
type Commit = BTreeMap<String, Value>;

/// Counts up in keys of its own, one at a time or some in one commit, and keeps what was answered: the commits by revision.
fn write(shared: &Shared, writer: u64) -> HashMap<u64, Commit> {
    let mut answered = HashMap::new();
    let mut client = None;
    for count in 1.. {
        if shared.stopped() {
            break;
        }
        let keys = if writer == 0 { BULK } else { 1 };
        let keys = (0..keys).map(|key| format!("w{writer}:{key}"));
        let commit: Commit = keys.map(|key| (key, json!(count))).collect();
        let item = |(key, value): (&String, &Value)| json!({"key": key, "value": value});
        let items: Vec<Value> = commit.iter().map(item).collect();
        let (method, path, body) = match writer {
            0 => {
                let body = json!({"operations": items, "with_revision": true});
                ("POST", "/api/v1/kv/bulk".to_owned(), body)
            }
            _ => (
                "PUT",
                format!("/api/v1/kv/w{writer}:0?with_revision=1"),
                json!({"value": count}),
            ),
        };
        // What is not answered may have happened or not. The next count is another one.
        if let Some(revision) = ask(&mut client, shared, method, &path, &body.to_string()) {
            let earlier = answered.insert(revision, commit);
            assert_eq!(earlier, None, "revision {revision} twice");
        }
        thread::sleep(PACE);
    }
    answered
}

/// Sends a write, and returns the revision that it was answered with.
fn ask(
    client: &mut Option<Client>,
    shared: &Shared,
    method: &str,
    path: &str,
    body: &str,
) -> Option<u64> {
    if client.is_none() {
        *client = Client::try_connect(shared.address()).ok();
    }
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut answer = None;
    if let Some(open) = client {
        answer = open
            .try_write(request)
            .and_then(|()| open.try_read(method))
            .ok();
    }
    match answer {
        Some(answer) if answer.status == 200 => {
            if answer.header("connection") == Some("close") {
                *client = None;
            }
            Some(answer.json()["revision"].as_u64().expect("a revision"))
        }
        Some(answer) => {
            assert_eq!(answer.status, 503, "{answer:?}"); // it ends
            *client = None;
            None
        }
        None => {
            *client = None;
            thread::sleep(AGAIN);
            None
        }
    }
}

/// The commits that a watcher has seen, in order.
#[derive(Default)]
struct Seen {
    commits: Vec<(u64, Commit)>,
    /// The last id: where it goes on.
    last: u64,
}

impl Seen {
    /// Takes in the events of a commit, of which the last one has the id.
    fn take(&mut self, commit: &[Event]) {
        let last = commit.last().unwrap();
        let id = last.id.unwrap();
        assert!(
            commit.iter().all(|event| event.revision() == id),
            "{commit:?}"
        );
        if ["ready", "progress"].contains(&&*last.name) {
            assert_eq!(commit.len(), 1, "in the middle of a commit: {commit:?}");
            assert!(id >= self.last, "{} {last:?}", self.last);
        } else {
            assert!(
                id > self.last,
                "again, or out of order: {} {last:?}",
                self.last
            );
            let value = |event: &Event| {
                assert_eq!(event.name, "put");
                let mut data = event.json();
                (
                    data["key"].as_str().unwrap().to_owned(),
                    data["value"].take(),
                )
            };
            let values: Commit = commit.iter().map(value).collect();
            assert_eq!(values.len(), commit.len(), "a key twice: {commit:?}");
            self.commits.push((id, values));
        }
        self.last = id;
    }
}

/// Connects, reads a little, and leaves without a word, wherever in a commit that is; again and again.
fn watch(shared: &Shared, watcher: u64, begun: u64) -> Seen {
    let mut random = Random::new(watcher + 1);
    let mut seen = Seen {
        last: begun,
        ..Seen::default()
    };
    let mut connections = 0;
    while connections < CONNECTIONS / WATCHERS {
        let Some(mut watcher) = come_back(shared, &seen, random.chance()) else {
            continue;
        };
        connections += 1;
        shared.connected.fetch_add(1, Ordering::Relaxed);
        // Sometimes up to the present and beyond, sometimes not even so far.
        let catch_up = random.below(3) > 0;
        let more = random.below(60);
        read(&mut watcher, &mut seen, catch_up, more);
    }
    seen
}

/// Connects from where it has come to. `None` if the server is not there.
fn come_back(shared: &Shared, seen: &Seen, by_header: bool) -> Option<Watcher> {
    let last = seen.last;
    let (headers, query) = match by_header {
        true => (format!("Last-Event-ID: {last}\r\n"), "since=1".to_owned()),
        false => (String::new(), format!("since={last}")),
    };
    match Watcher::ask(shared.address(), &headers, &query) {
        Ok(Ok(watcher)) => Some(watcher),
        Ok(Err(refused)) => {
            // The history is larger than all that is written here, and kept across restarts.
            assert_eq!(refused.status, 503, "{last}: {refused:?}");
            thread::sleep(AGAIN);
            None
        }
        Err(_) => {
            thread::sleep(AGAIN);
            None
        }
    }
}

/// Reads so many events, if wanted behind the one that says that what follows is new.
fn read(watcher: &mut Watcher, seen: &mut Seen, mut catch_up: bool, mut more: usize) {
    let mut commit = Vec::new();
    while catch_up || more > 0 {
        let Some(event) = watcher.next_event() else {
            return;
        };
        catch_up &= event.name != "ready";
        if !catch_up {
            more = more.saturating_sub(1);
        }
        commit.push(event);
        if commit.last().unwrap().id.is_some() {
            seen.take(&commit);
            commit.clear();
        }
    }
}

fn reconnect_a_thousand_times(durability: &str) {
    let directory = Directory::new();
    let options = [
        "--working-dir",
        directory.path_str(),
        "--durability",
        durability,
        "--snapshot-after",
        "200000",
    ];
    let mut server = Server::start(&options);
    let begun = state(&mut server.connect());
    let shared = Shared {
        address: Mutex::new(server.address),
        stop: AtomicBool::new(false),
        connected: AtomicU64::new(0),
    };
    let (answered, mut all) = thread::scope(|scope| {
        let shared = &shared;
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| scope.spawn(move || write(shared, writer)))
            .collect();
        let watchers: Vec<_> = (0..WATCHERS)
            .map(|watcher| scope.spawn(move || watch(shared, watcher, begun)))
            .collect();
        for restart in 1..=RESTARTS {
            wait_for("watchers to come back", || {
                let connected = shared.connected.load(Ordering::Relaxed);
                let ended = watchers.iter().any(|watcher| watcher.is_finished());
                (ended || connected >= restart * CONNECTIONS / (RESTARTS + 1)).then_some(())
            });
            if restart % 2 == 0 {
                server.signal("-TERM");
                server.wait();
            } else {
                server.kill();
            }
            server = Server::start(&options);
            *shared.address.lock().unwrap() = server.address;
        }
        let mut all: Vec<Seen> = watchers.into_iter().map(|it| it.join().unwrap()).collect();
        shared.stop.store(true, Ordering::Relaxed);
        let answered: Vec<_> = writers.into_iter().map(|it| it.join().unwrap()).collect();
        // And then, all the rest.
        for seen in &mut all {
            let mut watcher = come_back(shared, seen, true).unwrap();
            read(&mut watcher, seen, true, 0);
        }
        (answered, all)
    });

    let now = state(&mut server.connect());
    for seen in &all {
        assert_eq!(seen.last, now);
        assert!(
            seen.commits == all[0].commits,
            "they have seen different things"
        );
    }
    let seen: HashMap<u64, Commit> = all.remove(0).commits.into_iter().collect();
    let mut answers = 0;
    for (revision, commit) in answered.iter().flatten() {
        assert_eq!(seen.get(revision), Some(commit), "{revision}");
        answers += 1;
    }
    // What was not answered has come once or not at all, and never in part.
    let known = |revision| answered.iter().any(|it| it.contains_key(revision));
    let unanswered: Vec<_> = seen.iter().filter(|(it, _)| !known(*it)).collect();
    let mut counts: Vec<&Commit> = seen.values().collect();
    assert!(
        unanswered.len() as u64 <= WRITERS * RESTARTS,
        "{unanswered:?}"
    );
    assert!(answers > 500, "only {answers} writes");
    for commit in &counts {
        let bulk = commit.contains_key("w0:0");
        assert_eq!(commit.len(), if bulk { BULK } else { 1 }, "{commit:?}");
        let mut values = commit.values();
        let first = values.next();
        assert!(values.all(|value| Some(value) == first), "{commit:?}");
    }
    let before = counts.len();
    counts.sort_by_key(|commit| format!("{commit:?}"));
    counts.dedup();
    assert_eq!(counts.len(), before, "a write has come twice");
}

#[test]
fn nothing_is_lost_and_nothing_comes_twice_where_writes_are_synced() {
    reconnect_a_thousand_times("sync");
}

#[test]
fn nothing_is_lost_and_nothing_comes_twice_where_writes_survive_a_kill() {
    reconnect_a_thousand_times("os");
}

/// Where the history is short and a crash may take writes back, a watcher is told that there is a gap, or begins anew.
#[test]
fn a_gap_is_told() {
    let directory = Directory::new();
    let options = [
        "--working-dir",
        directory.path_str(),
        "--durability=none",
        "--history=4KiB",
    ];
    let (mut server, mut refused) = (Server::start(&options), 0);
    let mut mirror = Mirror::new();
    let mut random = Random::new(1);
    for round in 0..60 {
        let query = mirror.since().map(|since| format!("&since={since}"));
        let query = format!("initial=true{}", query.unwrap_or_default());
        let honest = mirror
            .since()
            .map(|since| Watcher::ask(server.address, "", &format!("since={since}")).unwrap());
        let resets = mirror.resets;
        let mut watcher = Watcher::open(&server, &query);
        let mut client = server.connect();
        let mut last = 0;
        for _ in 0..random.below(10) + 1 {
            let path = format!("/kv/k{}", random.below(20));
            last = revision(&client.send("PUT", &path, format!("{round}")));
        }
        while mirror.since() < Some(last) {
            mirror.apply(watcher.next());
        }
        match honest {
            Some(Err(gone)) => {
                assert_eq!((gone.status, mirror.resets), (410, resets + 1), "{gone:?}");
                refused += 1;
            }
            Some(Ok(_)) => assert_eq!(mirror.resets, resets),
            None => {}
        }
        let listing = client
            .send("GET", "/api/v1/kv?with_revision=true", "")
            .json();
        let data = listing["data"].as_object().unwrap();
        assert_eq!(data.len(), mirror.entries.len());
        for (key, entry) in &mirror.entries {
            assert_eq!(
                (&data[key]["value"], &data[key]["revision"]),
                (&entry.value, &json!(entry.revision))
            );
        }
        // It goes on while nobody watches.
        drop(watcher);
        mirror.reconnect();
        for _ in 0..random.below(60) {
            client
                .send("PUT", &format!("/kv/k{}", random.below(20)), "v")
                .expect(200, "");
        }
        if round % 5 == 4 {
            server.kill();
            server = Server::start(&options);
        }
    }
    assert!(refused > 10, "{refused}");
}

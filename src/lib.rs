//! threadkv: a key-value server over HTTP, made of plain threads and channels.
//!
//! # The house
//!
//! ```text
//!            tiny_http        crossbeam channel            Arc<RwLock<HashMap>>
//! socket ──► listener ──────► fixed pool of workers ─────► Store ── read:  under the read lock, answered at once
//!            server           server        api            └─────── write: a Command, committed, then answered
//! ```
//!
//! * [`server`] is the simple path: it moves requests to workers and answers to clients. It knows no keys.
//! * `armour` makes tiny_http fit to face the world. It can be left out: `cargo build --no-default-features`.
//! * [`store`] owns keys and values, and commits writes to memory, to disk, or by way of etcd. It knows nothing of clients.
//! * [`api`] joins the two: requests become commands, outcomes become responses. There are two APIs over the same keys.
//! * [`budget`] counts the memory that the data and the bodies under way take. The armour and the store share it. [`machine`] finds out how much
//!   there is.
//! * [`etcd`] is a client of etcd. Only the store uses it.
//! * [`dump`] is the format of exports: it reads them, and makes a store of one.
//! * [`metrics`] has what counts without a lock. The server, the armour and the store count with it, and `/metrics` writes it down.
//! * [`options`] turns the command line into a [`options::Config`] that the rest may trust. [`tokens`], [`rate`], [`origin`] and [`host`] are what
//!   options, files and the API share about who may do what and how often. [`logging`] writes log lines to stderr, as text or JSON, [`memory`] gives
//!   freed memory back to the system, [`health`] asks a running server how it is, [`signals`] and [`systemd`] are
//!   for who supervises it. `main` wires them together.
//!
//! `server` uses none of the others. `armour` uses `server`. `store` uses neither. `dump` uses `store`. Anybody may use [`budget`], [`metrics`] and
//! [`memory`].
//!
//! # A walk
//!
//! Read the files in this order, with an afternoon at hand. Each has one subject.
//!
//! **A GET** comes in.
//!
//! 1. `main.rs`: `serve` builds the store, the API and the server, and then waits for a signal.
//! 2. `server/mod.rs`: the threads, and `Server::start`, which starts them. `Shared::serve` is where a worker begins.
//! 3. `server/listener.rs`: tiny_http has a thread for each connection, which turns bytes into requests and puts them on one queue. The
//!    listener moves them from there to the pool, up to 16 in one message. *Why in batches?* Waking a worker costs more than most
//!    requests.
//! 4. `server/lanes.rs`: one request of a connection at a time. *Why?* Answers go out in order. A worker that answered the second
//!    request first would wait for the first one, and soon all workers would wait.
//! 5. `server/pool.rs`: the workers, and their two queues. *Why two?* New requests may be refused when there are too many. A request
//!    that has been begun must be finished, and workers send to that queue themselves: if it were full, they would wait for each other.
//! 6. `server/request.rs`: what a head says, and where its body is. An ambiguous length is an error, since a proxy might read it
//!    otherwise. `server/fault.rs`: the other reasons to refuse a request before anybody has looked at what it asks for.
//! 7. `api/mod.rs`, `api/route.rs`, `api/plain.rs`: path, method, token, rate, key, conditions, in this order, so that a refused request costs little.
//!    The result is an [`server::Admission`]: how long the body may be, and what to do once it is there.
//! 8. `store/mod.rs`, `store/map.rs`: [`store::Store::get`] looks the key up. *What is held under the lock?* The read lock, for one look-up and one
//!    cloned pointer. The text is copied to the socket after the lock was given back.
//! 9. `store/index/mod.rs` and behind it: the `HashMap`, and what makes it fast at ten million keys.
//! 10. `server/call.rs`, `server/response.rs`, `server/message.rs`: a [`server::Call`] is the duty to answer. One that is dropped answers 500, so
//!     a panic costs one request. The message is the answer in bytes.
//! 11. `server/door.rs`: who writes it. The plain door writes on the worker. Then the `Turn` is dropped, and the next request of the
//!     connection is up.
//!
//! **A durable PUT** goes the same way up to the store, and then:
//!
//! 1. `store/command.rs`: what may be done, and `store/entry.rs`: a key and its value in one block, made by the worker before any lock.
//!    `store/revision.rs`: the number that each commit has, and the condition that a write may name.
//! 2. `store/commit/mod.rs`: the command goes to a committer, with a closure that will answer. *Who waits for the disk?* No worker: it
//!    goes on with the next request.
//! 3. `store/commit/disk/mod.rs`: the files, the protocol, and what a start finds after a crash at any point.
//! 4. `store/commit/disk/writer.rs`: the journal thread takes all commands that wait, decides them on a staged copy (`store/keyspace.rs`),
//!    refuses those that `budget.rs` has no room for,
//!    writes one batch to the log (`log.rs`, `frame.rs`, `changes.rs`), syncs once, applies it under the write lock, and hands the
//!    answers to the pool. *Why then?* No reader may see what a crash could take back.
//! 5. `store/commit/disk/recovery.rs`: what a start does. `snapshotter.rs`, `snapshot.rs`, `store/frozen.rs`: how the log is replaced by a
//!    copy of the map while writes go on.
//!
//! **Watching** begins as a GET, and does not end:
//!
//! 1. `store/history.rs`: each commit appends what it has changed (`store/change.rs`). *What does that cost a writer?* A copy of a small
//!    entry, nothing more, and a ring of a bell if somebody watches (`store/audience.rs`).
//! 2. `server/streams.rs`: one thread has all answers without an end. It sleeps until the bell rings.
//! 3. `api/watching/mod.rs`: what each of them is sent, and `watcher.rs`: how one that is behind comes up with the others. *What if a client does
//!    not read?* One text waits for it, and the history forgets where it was.
//! 4. `api/watching/event.rs`: events in bytes; `copies.rs`: what was there at the beginning. `armour/stream.rs` takes them to the socket.
//!
//! **A backup** is an export, and comes back as an import or by `threadkv restore`:
//!
//! 1. `dump/mod.rs`: the format. `api/json/export.rs` makes it as the client reads, from a view of the map (`store/frozen.rs`). *Who waits
//!    meanwhile?* Nobody: whoever replaces an entry hands the old one to the view.
//! 2. `server/pieces.rs`, `server/upload.rs`: a body of any length, which is in memory a megabyte at a time. `armour/moving.rs` reads on when
//!    `api/json/import.rs` has committed what `dump/reader.rs` made of the last piece. *What slows a fast client down?* Its own socket.
//! 3. `dump/restore.rs`: the same without a server, into a directory that has no store until all of it is there.
//!
//! **Operating it** needs figures:
//!
//! 1. `metrics/cells.rs`: counters in shards. *Why shards?* Two workers that add to the same cache line wait for each other.
//! 2. `server/monitor.rs`, `server/traffic.rs`: what the server counts, by numbers that the API gives to operations. `store/meters.rs`: what the
//!    store counts.
//! 3. `api/operating/mod.rs`: `/livez`, `/readyz` and `/metrics`. `api/operating/metrics.rs` lists all metrics, `process.rs` asks the kernel.
//!    `api/page/mod.rs`: the page at `/`, from `page.html`, `page.css` and scripts: `talk.js` (requests, the token), `tree.js` (keys), `entry.js` (one
//!    entry), `live.js` (changes), `main.js` (health, and the start). It uses the JSON API as anybody could.
//! 4. `server/slow.rs`: where the time of a slow request went.
//! 5. `server/id.rs`: the `X-Request-Id` of an answer and of its line in the log, which `server/line.rs` makes.
//!
//! **A cluster** is a third way to commit:
//!
//! 1. `store/commit/cluster/mod.rs`: etcd as a log of commands, and what each thread does. *Why a log, and not the keys themselves?* Then each node
//!    decides with the code that it has anyway, and a bulk request, a clear or a condition is one record.
//! 2. `lane.rs` puts records into the log, `follower.rs` reads them, `replica.rs` carries them out. *What if an answer of etcd is lost?* The
//!    same record is put again, and counts once.
//! 3. `barrier.rs`, `readers.rs`, `api/consistency.rs`: how a read gets to see what other nodes have taken.
//! 4. `snapshot.rs`, `keeper.rs`: how the log is kept short, and who does that.
//!
//! **The armour** adds what hostile and slow clients make necessary. Its page lists each hazard, with the test that shows it. Begin with
//! `armour/hooks.rs`, the strangest file. Then follow the bytes: `armour/connection/reading.rs`, `armour/inbound.rs`, `armour/head.rs`. Then
//! the answer: `armour/connection/serving.rs`, `armour/transfer.rs`. Last, `armour/accept.rs`. *Who may wait for a client?* tiny_http's threads
//! and the transfer thread, never a worker.

// Tests may; elsewhere a comment has to show why it cannot happen.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::panic, clippy::unwrap_used)
)]

pub mod api;
#[cfg(feature = "armour")]
pub mod armour;
pub mod budget;
pub mod dump;
pub mod etcd;
pub mod health;
pub mod host;
pub mod logging;
pub mod machine;
pub mod memory;
pub mod metrics;
mod nesting;
pub mod options;
pub mod origin;
pub mod rate;
pub mod server;
pub mod signals;
pub mod store;
pub mod systemd;
pub mod tokens;

//! threadkv: a key-value server over HTTP, made of plain threads and channels.
//!
//! # The map of the house
//!
//! A request travels through three modules, which know as little of each other as they can:
//!
//! ```text
//!            tiny_http        crossbeam channel            Arc<RwLock<HashMap>>
//! socket ──► listener ──────► fixed pool of workers ─────► Store ── read:  under the read lock, answered at once
//!            server::listener server::pool     api         └─────── write: a Command, committed, then answered
//! ```
//!
//! * [`server`] owns sockets and threads: it accepts, queues, reads bodies, writes answers, survives what clients do,
//!   and drains at the end. It knows nothing of keys; it hands each request to a [`server::Service`].
//! * [`store`] owns keys and values, and what may be done to them. It knows no HTTP.
//! * [`api`] is the `Service` that joins the two: requests become commands, outcomes become responses. There are two APIs
//!   over the same keys, `api/plain.rs` and `api/json`, and one table of paths for both, `api/route.rs`.
//!
//! [`tokens`] are what lets clients in, where that is asked for, and a [`rate::Rate`] says how often. [`options`] turns the
//! command line into a [`options::Config`] that the rest may trust, [`logging`] sends log lines to stderr, [`memory`] gives
//! back what is not needed any more, and `main` wires them together and waits for a signal.
//!
//! To read it in the order in which a request flows: `main.rs`, `server/mod.rs`, `server/listener.rs`,
//! `server/connections.rs`, `server/pool.rs`, `api/mod.rs`, `api/plain.rs`, `store/mod.rs`, `server/call.rs`. What keeps
//! clients from stopping the server for others is in `server/receive.rs`, `server/transfer.rs` and `server/guard.rs`.

// Tests may; elsewhere a comment has to show why it cannot happen.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::panic, clippy::unwrap_used)
)]

pub mod api;
#[cfg(feature = "armour")]
pub mod armour;
pub mod logging;
pub mod memory;
pub mod options;
pub mod origin;
pub mod rate;
pub mod server;
pub mod store;
pub mod tokens;

//! The metrics, as Prometheus reads them (contract, "For those who operate it").

use crate::api::{Api, route};
use crate::metrics::{Kind, Text};
use crate::server::{Closing, Ending};

use Kind::{Counter, Gauge, Histogram};

/// All metrics as they are now. Takes some hundred microseconds.
pub(super) fn of(api: &Api) -> String {
    let mut text = Text::default();
    text.family(
        "threadkv_build_info",
        Gauge,
        "The version that runs, and what an answered write means.",
    )
    .sample(
        &[
            ("version", env!("CARGO_PKG_VERSION")),
            ("durability", &api.about.durability),
        ],
        1,
    );
    requests(api, &mut text);
    connections(api, &mut text);
    commits(api, &mut text);
    disk(api, &mut text);
    data(api, &mut text);
    watchers(api, &mut text);
    super::process::add(&mut text);
    text.into_string()
}

fn requests(api: &Api, text: &mut Text) {
    let monitor = &api.about.monitor;
    let operations = route::operations();
    text.family(
        "threadkv_http_requests_total",
        Counter,
        "Requests that were answered, by status code. A stream counts when it begins.",
    );
    for (operation, api, name) in &operations {
        for (code, count) in monitor.codes(*operation) {
            let code = code.to_string();
            text.sample(&[("api", api), ("operation", name), ("code", &code)], count);
        }
    }
    text.family(
        "threadkv_http_request_duration_seconds",
        Histogram,
        "From the last byte of a request's head to its answer, without the time that the client took to send a body or to read the answer.",
    );
    for (operation, api, name) in &operations {
        let read = monitor.durations(*operation);
        if read.count() > 0 {
            text.histogram(&[("api", api), ("operation", name)], &read);
        }
    }
    text.single(
        "threadkv_http_requests_in_flight",
        Gauge,
        "Requests that have begun and are not answered whole, without streams, and with this one.",
        monitor.in_flight(),
    );
    text.family(
        "threadkv_requests_refused_total",
        Counter,
        "Requests that were refused, whatever they asked for, by reason.",
    );
    let refused = monitor.refused().chain(api.refusals.counts());
    for (reason, count) in refused.chain(api.store.meters().refused()) {
        text.sample(&[("reason", reason)], count);
    }
    let (requests, bytes) = api.about.pool.waiting();
    text.single(
        "threadkv_queue_requests",
        Gauge,
        "Requests that wait for a worker.",
        requests,
    );
    text.single(
        "threadkv_queue_bytes",
        Gauge,
        "What requests that wait for a worker take. More than threadkv_queue_limit_bytes are refused.",
        bytes,
    );
    text.single(
        "threadkv_queue_limit_bytes",
        Gauge,
        "What requests that wait for a worker may take.",
        crate::server::Pool::WAITING,
    );
    text.single(
        "threadkv_workers",
        Gauge,
        "Threads that answer requests.",
        api.about.workers,
    );
}

fn connections(api: &Api, text: &mut Text) {
    let monitor = &api.about.monitor;
    text.single(
        "threadkv_connections",
        Gauge,
        "Open connections.",
        monitor.connections(),
    );
    if let Some(most) = api.about.max_connections {
        text.single(
            "threadkv_connections_limit",
            Gauge,
            "Connections that may be open. Further clients wait.",
            most,
        );
        text.single(
            "threadkv_connections_accepted_total",
            Counter,
            "Connections that were let in.",
            monitor.accepted(),
        );
        text.family(
            "threadkv_connections_closed_total",
            Counter,
            "Connections that were closed, by who or what closed them.",
        );
        for closing in Closing::ALL {
            text.sample(&[("reason", closing.word())], monitor.closed(closing));
        }
    }
}

fn commits(api: &Api, text: &mut Text) {
    let meters = api.store.meters();
    let batches = meters.batches.read();
    text.single(
        "threadkv_commits_total",
        Counter,
        "Commits. With a working directory, writes that wait together are one commit.",
        batches.count(),
    );
    text.family(
        "threadkv_commit_batch_size",
        Histogram,
        "How many writes a commit had.",
    )
    .histogram(&[], &batches);
    text.single(
        "threadkv_commit_queue_writes",
        Gauge,
        "Writes that wait to be committed.",
        api.store.queued(),
    );
    text.single(
        "threadkv_writable",
        Gauge,
        "1 while writes are taken; 0 while the disk hangs, refuses or has failed.",
        u8::from(super::is_writable(&api.store)),
    );
    text.single(
        "threadkv_ready",
        Gauge,
        "1 while /readyz says ok.",
        u8::from(api.unready().is_none()),
    );
}

/// What there is only with a working directory.
fn disk(api: &Api, text: &mut Text) {
    if !api.about.on_disk {
        return;
    }
    let meters = api.store.meters();
    text.family(
        "threadkv_fsync_duration_seconds",
        Histogram,
        "How long the disk took to sync the log.",
    )
    .histogram(&[], &meters.syncs.read());
    text.single(
        "threadkv_log_bytes",
        Gauge,
        "Length of the log, back to the last snapshot.",
        meters.log_bytes(),
    );
    let [written, failed] = meters.snapshots();
    text.family(
        "threadkv_snapshots_total",
        Counter,
        "Snapshots of the data that were tried, by result.",
    )
    .sample(&[("result", "ok")], written)
    .sample(&[("result", "failed")], failed);
    // Absent before the first one, so that its age is not taken for decades.
    if let Some((took, at)) = meters.last_snapshot() {
        text.single(
            "threadkv_last_snapshot_duration_seconds",
            Gauge,
            "How long the last snapshot took that was written.",
            took.as_secs_f64(),
        );
        text.single(
            "threadkv_last_snapshot_timestamp_seconds",
            Gauge,
            "When the last snapshot was written, in seconds since 1970.",
            at.as_secs_f64(),
        );
    }
}

fn data(api: &Api, text: &mut Text) {
    let (store, budget) = (&api.store, api.store.budget());
    text.single(
        "threadkv_keys",
        Gauge,
        "Keys that have not expired.",
        store.size().keys,
    );
    text.single(
        "threadkv_stored_bytes",
        Gauge,
        "Memory that the data takes, all that it needs included.",
        budget.stored(),
    );
    text.single(
        "threadkv_stored_limit_bytes",
        Gauge,
        "Memory that the data may take.",
        budget.data_limit(),
    );
    text.single(
        "threadkv_held_bytes",
        Gauge,
        "Memory of what is not data any more, and is kept until a snapshot or a copy is done.",
        budget.held(),
    );
    text.single(
        "threadkv_bodies_bytes",
        Gauge,
        "Memory of bodies of requests under way.",
        budget.under_way(),
    );
    text.single(
        "threadkv_memory_limit_bytes",
        Gauge,
        "Memory that the data and bodies under way may take together.",
        budget.limit(),
    );
    text.single(
        "threadkv_expired_total",
        Counter,
        "Keys that were removed since they had expired.",
        store.meters().expired(),
    );
    text.single(
        "threadkv_expiry_lag_seconds",
        Gauge,
        "For how long the key that expired first has been waiting to be removed; 0 if none is.",
        store.expiry_lag() as f64 / 1000.0,
    );
    let past = store.past();
    text.single(
        "threadkv_revision",
        Gauge,
        "The revision of the last commit.",
        past.latest,
    );
    text.single(
        "threadkv_history_oldest_revision",
        Gauge,
        "The earliest revision from which a watcher can go on.",
        past.oldest,
    );
    text.single(
        "threadkv_history_bytes",
        Gauge,
        "Memory of the latest changes, kept for watchers.",
        past.bytes,
    );
}

fn watchers(api: &Api, text: &mut Text) {
    let monitor = &api.about.monitor;
    text.single(
        "threadkv_watchers",
        Gauge,
        "Clients that watch.",
        monitor.streams(),
    );
    text.single(
        "threadkv_watchers_limit",
        Gauge,
        "Clients that may watch.",
        api.hub.most(),
    );
    text.family(
        "threadkv_watchers_dropped_total",
        Counter,
        "Clients that do not watch any more, by reason.",
    );
    for ending in Ending::ALL {
        text.sample(&[("reason", ending.word())], monitor.ended(ending));
    }
}

//! What the kernel knows of this process.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use crate::metrics::{Kind, Text};

/// What `/proc/self/stat` says. The fields are counted as `proc(5)` does.
struct Stat {
    cpu_seconds: f64,
    threads: u64,
    /// Seconds between the start of the system and that of the process.
    started: f64,
    virtual_bytes: u64,
    resident_bytes: u64,
}

/// Adds the metrics that client libraries of Prometheus add, under the same names. What the kernel does not tell is left out.
pub(super) fn add(text: &mut Text) {
    let stat = fs::read_to_string("/proc/self/stat");
    if let Some(stat) = stat.ok().and_then(|stat| parse(&stat)) {
        text.single(
            "process_cpu_seconds_total",
            Kind::Counter,
            "Processor time used, by all threads, in user and in system mode.",
            stat.cpu_seconds,
        );
        text.single(
            "process_resident_memory_bytes",
            Kind::Gauge,
            "Memory in use.",
            stat.resident_bytes,
        );
        text.single(
            "process_virtual_memory_bytes",
            Kind::Gauge,
            "Address space reserved. Most of it takes no memory.",
            stat.virtual_bytes,
        );
        text.single(
            "process_threads",
            Kind::Gauge,
            "Threads. Each connection has one.",
            stat.threads,
        );
        if let Some(boot) = boot_time() {
            text.single(
                "process_start_time_seconds",
                Kind::Gauge,
                "When the process was started, in seconds since 1970.",
                boot as f64 + stat.started,
            );
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        text.single(
            "process_open_fds",
            Kind::Gauge,
            "Open file descriptors.",
            open.count().saturating_sub(1), // that of the directory itself
        );
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        text.single(
            "process_max_fds",
            Kind::Gauge,
            "File descriptors that may be open.",
            most,
        );
    }
}

fn parse(stat: &str) -> Option<Stat> {
    // The name of the program is in parentheses, and may have any characters, these too. The third field follows.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = clock_ticks_per_second() as f64;
    Some(Stat {
        cpu_seconds: (field(14)? + field(15)?) as f64 / ticks,
        threads: field(20)?,
        started: field(22)? as f64 / ticks,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * page_size() as u64,
    })
}

/// When the system was started, in seconds since 1970.
fn boot_time() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks_does_not_shift_the_fields() {
        let fields: Vec<String> = (4..=52).map(|field: u64| field.to_string()).collect();
        let stat = parse(&format!("1 (a) b (c) S {}", fields.join(" "))).unwrap();
        let ticks = clock_ticks_per_second() as f64;
        assert_eq!(stat.cpu_seconds, 29.0 / ticks);
        assert_eq!(stat.started, 22.0 / ticks);
        assert_eq!((stat.threads, stat.virtual_bytes), (20, 23));
        assert_eq!(stat.resident_bytes, 24 * page_size() as u64);
        assert!(parse("1 (short) S 1").is_none());
    }

    #[test]
    fn the_kernel_tells_of_this_process() {
        let mut text = Text::default();
        add(&mut text);
        let text = text.into_string();
        assert_eq!(text.matches("# TYPE process_").count(), 7, "{text}");
    }
}

//! What was found, as a picture, drawn by gnuplot.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::child::{Child, find_program};
use crate::loads;
use crate::machine::Machine;
use crate::memory;
use crate::peers::Peer;
use crate::results::{Results, Speed};
use crate::wrk::Sample;

/// Draws `peers.svg` into a directory, where gnuplot finds the script it was drawn with as well.
pub fn draw(results: &Results, directory: &Path) -> Result<PathBuf, String> {
    let gnuplot = find_program("gnuplot")
        .ok_or("no chart, since gnuplot is missing: apt install gnuplot-nox")?;
    let mut panels = panels(results);
    panels.iter_mut().for_each(Panel::leave_out_empty_rows);
    panels.retain(|panel| !panel.rows.is_empty());
    if panels.is_empty() {
        return Err("no chart, since nothing was measured that is on it".into());
    }
    let path = directory.join("peers.gp");
    let script = script(results, &panels);
    fs::write(&path, script).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut command = Command::new(gnuplot);
    command.arg(&path);
    Child::spawn("gnuplot", command, directory)?.finish()?;
    Ok(directory.join("peers.svg"))
}

/// A chart of bars: a group for each row, and in it a bar for each server.
struct Panel {
    title: &'static str,
    logarithmic: bool,
    servers: Vec<Peer>,
    rows: Vec<(String, Vec<Option<Range>>)>,
}

/// A median, and the least and the most.
#[derive(Clone, Copy)]
struct Range([f64; 3]);

impl Panel {
    /// One row for each load.
    fn of_loads(
        title: &'static str,
        results: &Results,
        rows: &[(String, String)],
        servers: &[Peer],
        of: fn(&Sample) -> f64,
    ) -> Panel {
        let range = |load: &str, server: &Peer| range(results.speed(load, server.name())?, of);
        let row = |(label, load): &(String, String)| {
            let ranges = servers.iter().map(|server| range(load, server));
            (label.clone(), ranges.collect())
        };
        Panel {
            title,
            logarithmic: false,
            servers: servers.to_vec(),
            rows: rows.iter().map(row).collect(),
        }
    }

    fn logarithmic(self) -> Panel {
        Panel {
            logarithmic: true,
            ..self
        }
    }

    fn leave_out_empty_rows(&mut self) {
        self.rows
            .retain(|(_, ranges)| ranges.iter().any(Option::is_some));
    }
}

fn panels(results: &Results) -> Vec<Panel> {
    let by_connections = |name: &str, connections: &[u32]| -> Vec<(String, String)> {
        let row = |count: &u32| (count.to_string(), format!("{name}-{count}"));
        connections.iter().map(row).collect()
    };
    let rate: fn(&Sample) -> f64 = |sample| sample.rate / 1e3;
    let p99: fn(&Sample) -> f64 = |sample| sample.p99;
    let in_memory = &[Peer::Threadkv, Peer::Bare, Peer::Nginx, Peer::Redis][..];
    let synced = &[Peer::ThreadkvSync, Peer::RedisSync, Peer::Etcd];
    let mut panels = Vec::new();
    for (name, connections, servers, titles) in [
        (
            "get",
            &loads::CONNECTIONS[..],
            in_memory,
            [
                "GET: thousand requests/s, by connections",
                "GET: p99 in ms, by connections",
            ],
        ),
        (
            "put",
            &loads::CONNECTIONS,
            in_memory,
            [
                "PUT: thousand requests/s, by connections",
                "PUT: p99 in ms, by connections",
            ],
        ),
        (
            "durable-put",
            &loads::DURABLE_CONNECTIONS,
            synced,
            [
                "synced PUT: thousand requests/s, by connections",
                "synced PUT: p99 in ms, by connections",
            ],
        ),
    ] {
        let rows = by_connections(name, connections);
        let [rates, times] = titles;
        panels.push(Panel::of_loads(rates, results, &rows, servers, rate));
        panels.push(Panel::of_loads(times, results, &rows, servers, p99).logarithmic());
    }
    let others = [
        ("mix", "mix-64"),
        ("GET 10 kB", "get-10k-64"),
        ("PUT 10 kB", "put-10k-64"),
        ("GET 1 MB", "get-1m-16"),
        ("PUT 1 MB", "put-1m-16"),
        ("bulk", "bulk-16"),
    ];
    let others = others.map(|(label, load)| (label.to_owned(), load.to_owned()));
    let title = "other loads: thousand requests/s";
    let servers = [Peer::Threadkv, Peer::Redis];
    panels.push(Panel::of_loads(title, results, &others, &servers, rate).logarithmic());
    panels.push(memory(results));
    panels
}

fn memory(results: &Results) -> Panel {
    let servers = [Peer::Threadkv, Peer::Bare, Peer::Nginx, Peer::Redis];
    let row = |label: &str, load, name| {
        let figure = |server: &Peer| results.figure(load, server.name(), name);
        let range = |figure| Range([figure; 3]);
        let ranges = servers.iter().map(|server| figure(server).map(range));
        (label.to_owned(), ranges.collect())
    };
    Panel {
        title: "resident memory in MB",
        logarithmic: false,
        servers: servers.to_vec(),
        rows: vec![
            row("a million keys", memory::KEYS, memory::WITH_KEYS),
            row(
                "5,000 idle connections",
                memory::IDLE,
                memory::WITH_CONNECTIONS,
            ),
        ],
    }
}

fn range(speed: &Speed, of: fn(&Sample) -> f64) -> Option<Range> {
    let median = speed.median(of)?;
    let all = || speed.samples.iter().map(of);
    Some(Range([
        median,
        all().reduce(f64::min)?,
        all().reduce(f64::max)?,
    ]))
}

/// What gnuplot is to do.
fn script(results: &Results, panels: &[Panel]) -> String {
    let Machine {
        cores, processor, ..
    } = &results.machine;
    let (rounds, seconds, version) = (results.rounds, results.seconds, env!("CARGO_PKG_VERSION"));
    let lines = panels.len().div_ceil(2);
    let height = 60 + 330 * lines;
    let mut script = format!(
        "set terminal svg size 1200,{height} dynamic font 'sans-serif,14' background 'white'\n\
         set output 'peers.svg'\n\
         set multiplot layout {lines},2 title \"threadkv {version} and its peers on {cores} cores ({processor}), \
         shared with the load\\nmedians, least and most of {rounds} rounds of {seconds} s\" font ',16'\n\
         set style data histograms\n\
         set style histogram errorbars gap 1.5 linewidth 1\n\
         set style fill solid 0.9 noborder\n\
         set datafile missing '?'\n\
         set errorbars 0.5 linecolor rgb '#333333'\n\
         set grid ytics linecolor rgb '#dddddd'\n\
         set border 3 linecolor rgb '#888888'\n\
         set tics nomirror scale 0.5 textcolor rgb '#333333'\n\
         set key below horizontal maxcols 3 samplen 1 width -3 font ',11'\n\
         set lmargin 8\n"
    );
    for (number, panel) in panels.iter().enumerate() {
        script.push_str(&plot(panel, &format!("$data{number}")));
    }
    script
}

/// The part for one panel, with its data under that name.
fn plot(panel: &Panel, data: &str) -> String {
    let cell = |range: &Option<Range>| match range {
        Some(Range([median, least, most])) => format!("{median} {least} {most}"),
        None => "? ? ?".into(),
    };
    let row = |(label, ranges): &(String, Vec<Option<Range>>)| {
        let cells: Vec<String> = ranges.iter().map(cell).collect();
        format!("\"{label}\" {}\n", cells.join(" "))
    };
    let rows: String = panel.rows.iter().map(row).collect();
    let bar = |(place, server): (usize, &Peer)| {
        let [median, least, most] = [2, 3, 4].map(|column| column + 3 * place);
        let (name, colour) = (server.name(), colour(*server));
        format!(
            "{data} using {median}:{least}:{most}:xtic(1) title '{name}' linecolor rgb '{colour}'"
        )
    };
    let bars: Vec<String> = panel.servers.iter().enumerate().map(bar).collect();
    let (scale, least) = if panel.logarithmic {
        ("set logscale y", "*")
    } else {
        ("unset logscale", "0")
    };
    let last = panel.rows.len() as f64 - 0.4;
    format!(
        "{data} << END\n{rows}END\n\
         {scale}\n\
         set yrange [{least}:*]\n\
         set xrange [-0.6:{last}]\n\
         set title '{}'\n\
         plot {}\n",
        panel.title,
        bars.join(", ")
    )
}

/// The same for a server everywhere, and told apart by those who see colours differently.
fn colour(server: Peer) -> &'static str {
    match server {
        Peer::Threadkv | Peer::ThreadkvSync | Peer::ThreadkvTokens | Peer::Cluster => "#0072b2",
        Peer::Nginx => "#999999",
        Peer::Redis | Peer::RedisSync => "#d55e00",
        Peer::Etcd | Peer::EtcdThree => "#009e73",
        Peer::Bare => "#f0e442",
    }
}

//! What was found, as text.

use std::fmt::Write;

use crate::bars::Bar;
use crate::machine::Machine;
use crate::results::{Figure, Figures, Results, Speed};
use crate::wrk::Sample;

/// The machine and what runs on it.
pub fn heading(machine: &Machine, rounds: u32, seconds: u32) -> String {
    let Machine {
        cores,
        processor,
        kernel,
        file_system,
        load_average,
        programs,
    } = machine;
    let busy = if machine.is_busy() {
        ": it is busy with something else, which slows some servers down more than others"
    } else {
        ""
    };
    format!(
        "{cores} cores, {processor}, {kernel}, {file_system}; load average {load_average}{busy}\n\
         {}\n\
         {rounds} rounds of {seconds} s; medians, times in ms; threadkv/it: the first line's req/s by this one's, the median of the rounds' ratios\n",
        programs.join(", ")
    )
}

/// The names of the columns of [`speeds`].
pub fn speed_heading() -> String {
    format!(
        "\n{:<15} {:<28} {:>9} {:>19} {:>8} {:>8} {:>8} {:>8} {:>11}\n",
        "load", "server", "req/s", "min..max", "p50", "p99", "p99.9", "max", "threadkv/it"
    )
}

/// What wrk found under one load. The first server is the one that the others are compared with.
pub fn speeds(speeds: &[Speed]) -> String {
    let mut text = String::new();
    let Some(first) = speeds.first() else {
        return text;
    };
    for (number, speed) in speeds.iter().enumerate() {
        let load = if number == 0 { speed.load.as_str() } else { "" };
        let line = match &speed.error {
            Some(error) => format!("FAILED: {error}"),
            None if number == 0 => speed_line(speed, None),
            None => speed_line(speed, first.ratio(speed, |it| it.rate)),
        };
        let _ = writeln!(text, "{load:<15} {:<28} {line}", speed.server); // a String takes everything
    }
    text
}

fn speed_line(speed: &Speed, ratio: Option<f64>) -> String {
    let rates = || speed.samples.iter().map(|sample| sample.rate);
    let (min, max) = (rates().reduce(f64::min), rates().reduce(f64::max));
    let spread = format!(
        "{}..{}",
        count(min.unwrap_or(0.0)),
        count(max.unwrap_or(0.0))
    );
    let median = |of: fn(&Sample) -> f64| speed.median(of).unwrap_or(0.0);
    let rate = median(|it| it.rate);
    let ratio = ratio.map(|ratio| format!("{ratio:.2}"));
    format!(
        "{:>9} {spread:>19} {:>8.3} {:>8.3} {:>8.2} {:>8.1} {:>11}",
        count(rate),
        median(|it| it.p50),
        median(|it| it.p99),
        median(|it| it.p999),
        median(|it| it.max),
        ratio.unwrap_or_default()
    )
}

/// Other figures.
pub fn figures(all: &[Figures]) -> String {
    let mut text = String::from("\n");
    let mut last = "";
    for figures in all {
        let load = if figures.load == last {
            ""
        } else {
            figures.load
        };
        last = figures.load;
        let line = match &figures.error {
            Some(error) => format!("FAILED: {error}"),
            None => {
                let figures: Vec<String> = figures.figures.iter().map(figure).collect();
                figures.join(", ")
            }
        };
        let _ = writeln!(text, "{load:<15} {:<28} {line}", figures.server);
    }
    text
}

fn figure(figure: &Figure) -> String {
    let Figure { name, unit, rounds } = figure;
    let number = |number: f64| match number {
        0.0..10.0 => format!("{number:.2}"),
        10.0..1000.0 => format!("{number:.1}"),
        _ => count(number),
    };
    let median = number(figure.median().unwrap_or(0.0));
    let spread = match rounds.len() {
        0 | 1 => String::new(),
        _ => {
            let min = rounds.iter().copied().fold(f64::INFINITY, f64::min);
            let max = rounds.iter().copied().fold(0.0, f64::max);
            format!(" ({}..{})", number(min), number(max))
        }
    };
    format!("{name} {median} {unit}{spread}").replace("  ", " ")
}

/// Which bars are met, of those that were measured.
pub fn bars(bars: &[Bar]) -> String {
    let measured = || bars.iter().filter(|bar| bar.figure.is_some());
    let (all, count) = (bars.len(), measured().count());
    let mut text = format!("\nbars, {count} of {all} measured\n");
    for bar in measured() {
        let _ = writeln!(text, "{bar}");
    }
    text
}

/// What of threadkv has failed, in one line each. That of a peer is in its line of the table, and no reason to fail.
pub fn failures(results: &Results) -> Vec<String> {
    let speeds = results.speeds.iter().filter(|it| it.ours);
    let speeds = speeds.filter_map(|it| Some((it.load.as_str(), it.server, it.error.as_ref()?)));
    let figures = results.figures.iter().filter(|it| it.ours);
    let figures = figures.filter_map(|it| Some((it.load, it.server, it.error.as_ref()?)));
    let line = |(load, server, error): (&str, &str, &String)| format!("{load}, {server}: {error}");
    speeds.chain(figures).map(line).collect()
}

/// A whole number, with its thousands apart.
fn count(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

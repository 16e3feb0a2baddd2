//! The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write};

use super::histogram::Reading;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the process ends.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How often a value was how large.
    Histogram,
}

/// Label names and their values. The values are our own, never a client's text.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// A text to which metrics are added, one family after the other.
#[derive(Default)]
pub struct Text {
    text: String,
    /// The name of the family that is being written.
    family: &'static str,
}

impl Text {
    /// Begins a family. Its samples follow, and nothing else before the next family.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> &mut Text {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a String cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        self.family = name;
        self
    }

    /// Adds a sample to the family.
    pub fn sample(&mut self, labels: Labels<'_>, value: impl Display) -> &mut Text {
        self.line("", labels, None, value);
        self
    }

    /// Adds the samples of a histogram to the family.
    pub fn histogram(&mut self, labels: Labels<'_>, read: &Reading) -> &mut Text {
        let (unit, mut count) = (read.buckets.unit, 0);
        let bounds = read.buckets.bounds.iter();
        let bounds = bounds.map(|bound| (*bound as f64 / unit).to_string());
        for (bound, more) in bounds.chain(["+Inf".to_owned()]).zip(&read.counts) {
            count += more;
            self.line("_bucket", labels, Some(("le", &bound)), count);
        }
        self.line("_sum", labels, None, read.sum as f64 / unit);
        self.line("_count", labels, None, count);
        self
    }

    /// A family with one sample that has no labels.
    pub fn single(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &str,
        value: impl Display,
    ) -> &mut Text {
        self.family(name, kind, help).sample(&[], value)
    }

    /// The whole text.
    pub fn into_string(self) -> String {
        self.text
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: Labels<'_>,
        last: Option<(&str, &str)>,
        value: impl Display,
    ) {
        let text = &mut self.text;
        let _ = write!(text, "{}{suffix}", self.family);
        let mut separator = '{';
        for (name, value) in labels.iter().copied().chain(last) {
            let _ = write!(text, "{separator}{name}=\"{}\"", Escaped(value));
            separator = ',';
        }
        if separator == ',' {
            text.push('}');
        }
        let _ = writeln!(text, " {value}");
    }
}

/// A label value: a backslash, a quote and a line end would end it.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Buckets, Histogram};
    use super::*;

    #[test]
    fn families_are_written_as_prometheus_reads_them() {
        let mut text = Text::default();
        text.single("a", Kind::Gauge, "What a is.", 1.5);
        text.family("b_total", Kind::Counter, "What b is.")
            .sample(&[("x", "1"), ("y", "q\"\\\n")], 7)
            .sample(&[], u64::MAX);
        assert_eq!(
            text.into_string(),
            "# HELP a What a is.\n# TYPE a gauge\na 1.5\n\
             # HELP b_total What b is.\n# TYPE b_total counter\n\
             b_total{x=\"1\",y=\"q\\\"\\\\\\n\"} 7\nb_total 18446744073709551615\n"
        );
    }

    #[test]
    fn buckets_of_a_histogram_add_up() {
        let histogram = Histogram::new(Buckets {
            bounds: &[100_000, 2_500_000_000],
            unit: 1e9,
        });
        for nanos in [50_000, 100_000, 1_000_000_000, 9_000_000_000] {
            histogram.observe(nanos);
        }
        let mut text = Text::default();
        text.family("t", Kind::Histogram, "T.")
            .histogram(&[("o", "p")], &histogram.read());
        let lines = text.into_string();
        let lines: Vec<&str> = lines.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "t_bucket{o=\"p\",le=\"0.0001\"} 2",
                "t_bucket{o=\"p\",le=\"2.5\"} 3",
                "t_bucket{o=\"p\",le=\"+Inf\"} 4",
                "t_sum{o=\"p\"} 10.00015",
                "t_count{o=\"p\"} 4",
            ]
        );
    }
}

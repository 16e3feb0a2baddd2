//! What `/metrics` is made of: counters, histograms, and the text format of Prometheus.
//!
//! Counting happens on the way of every request, so it takes no lock: a count is a relaxed atomic addition. What all workers count is
//! kept in [`Cells`], in which threads have shards of their own, so that they do not fight over a cache line. A reader adds the shards
//! up. It sees each single count whole, but not all counts of the same moment.
//!
//! `server`, `store` and `armour` count. `api` asks them and writes the text.

mod cells;
mod histogram;
mod text;

pub use cells::Cells;
pub use histogram::{Buckets, Histogram, Reading};
pub use text::{Kind, Text};

//! Log lines to stderr.

use std::io::{LineWriter, stderr};

use log::{LevelFilter, SetLoggerError};
use simplelog::{ConfigBuilder, WriteLogger};

/// Sends log lines of that level and above to stderr, each in one write, with the time in UTC.
pub fn init(level: LevelFilter) -> Result<(), SetLoggerError> {
    let config = ConfigBuilder::new()
        .set_time_format_rfc3339()
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        // What tiny_http reports as an error is part of ours' normal operation, and reported by us.
        .add_filter_ignore_str("tiny_http")
        .build();
    WriteLogger::init(level, config, LineWriter::new(stderr()))
}

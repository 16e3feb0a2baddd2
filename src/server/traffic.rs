//! Counts requests by what they asked for and how they were answered.

use std::time::Duration;

use crate::metrics::{Buckets, Cells, Reading};

/// What a request asks for, as a number that the [`super::Service`] gives it. The server only counts by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operation(u8);

impl Operation {
    /// There are so many of them at most.
    pub const COUNT: usize = 48;

    /// That of a request for nothing that the service has, or that the server refuses before it asks the service.
    pub const UNKNOWN: Operation = Operation(0);

    /// The operation of that number, below [`Operation::COUNT`].
    pub const fn new(number: usize) -> Operation {
        assert!(number < Operation::COUNT);
        Operation(number as u8)
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Operation> {
        (0..Operation::COUNT).map(Operation::new)
    }

    /// Its number.
    pub fn number(self) -> usize {
        self.0.into()
    }
}

/// The status codes that are counted one by one, ascending. Any other one is counted as the last one.
const CODES: [u16; 24] = [
    200, 204, 304, 400, 401, 403, 404, 405, 408, 409, 410, 412, 413, 414, 415, 417, 429, 431, 501,
    503, 504, 505, 507, 500,
];

/// How many of them ascend.
const ASCENDING: usize = CODES.len() - 1;

/// The counters of an operation: one a code, then those of the histogram.
const STRIDE: usize = CODES.len() + Buckets::DURATIONS.cells();

/// The counters. Workers add to them for each answer.
pub(super) struct Traffic {
    cells: Cells,
}

impl Default for Traffic {
    fn default() -> Traffic {
        Traffic {
            cells: Cells::new(Operation::COUNT * STRIDE),
        }
    }
}

impl Traffic {
    /// Counts an answer with that status, which took so long.
    pub(super) fn count(&self, operation: Operation, status: u16, took: Duration) {
        let code = CODES[..ASCENDING].binary_search(&status);
        let first = operation.number() * STRIDE;
        self.cells.add(first + code.unwrap_or(ASCENDING), 1);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let histogram = first + CODES.len();
        self.cells.add(histogram + Buckets::DURATIONS.of(nanos), 1);
        self.cells
            .add(histogram + Buckets::DURATIONS.cells() - 1, nanos);
    }

    /// How many answers an operation had, by status code, without those that it never had.
    pub(super) fn codes(&self, operation: Operation) -> Vec<(u16, u64)> {
        let first = operation.number() * STRIDE;
        let codes = CODES.iter().enumerate();
        codes
            .map(|(at, code)| (*code, self.cells.sum(first + at)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// How long the answers of an operation took.
    pub(super) fn durations(&self, operation: Operation) -> Reading {
        let first = operation.number() * STRIDE + CODES.len();
        let buckets = Buckets::DURATIONS;
        let sum = first + buckets.cells() - 1;
        Reading {
            buckets,
            counts: (first..sum).map(|at| self.cells.sum(at)).collect(),
            sum: self.cells.sum(sum),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Fault;

    #[test]
    fn answers_are_counted_by_operation_and_code_with_how_long_they_took() {
        let traffic = Traffic::default();
        let [one, last] = [1, Operation::COUNT - 1].map(Operation::new);
        let second = Duration::from_secs(1);
        traffic.count(one, 200, second);
        traffic.count(one, 200, second);
        traffic.count(one, 404, second * 100);
        traffic.count(last, 599, Duration::ZERO);
        assert_eq!(traffic.codes(one), [(200, 2), (404, 1)]);
        assert_eq!(traffic.codes(last), [(500, 1)]);
        assert_eq!(traffic.codes(Operation::UNKNOWN), []);
        let durations = traffic.durations(one);
        assert_eq!(durations.count(), 3);
        assert_eq!(durations.sum, 102_000_000_000);
        assert_eq!(durations.counts.last(), Some(&1));
        assert_eq!(traffic.durations(last).counts[0], 1);
    }

    #[test]
    fn the_codes_of_all_faults_are_counted_by_themselves() {
        assert!(CODES[..ASCENDING].is_sorted());
        for fault in Fault::ALL {
            assert!(CODES.contains(&fault.status()), "{fault:?}");
        }
    }
}

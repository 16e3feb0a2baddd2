//! Whether the clock of this node is far ahead of the other nodes'.
//!
//! A record takes effect at the highest time that any had. One from a node whose clock is an hour ahead would make everybody's keys expire
//! an hour early, and so would all records behind it. So such a node takes no writes.

use std::collections::HashMap;
use std::time::Duration;

use super::record::NodeState;
use crate::etcd::KeyValue;

/// Further ahead than this is too far. Less cannot be told apart from the time that it takes to hear of another clock.
const AHEAD: Duration = Duration::from_secs(5);

/// What is known of the other nodes' clocks.
#[derive(Default)]
pub(super) struct Clocks {
    /// At which of etcd's revisions each node had last said what its clock says.
    heard: HashMap<Vec<u8>, i64>,
    ahead: bool,
}

impl Clocks {
    /// Compares the clock of this node, `now` in milliseconds since 1970, with those of the others. What a node says that was not heard of before
    /// may be as old as `silence`. Returns whether this one is ahead of all of them.
    pub(super) fn compare(&mut self, others: &[KeyValue], now: u64, silence: Duration) -> bool {
        let lead = |node: &KeyValue| {
            let clock = NodeState::decode(&node.value)?.now;
            let age = match self.heard.get(&node.key) {
                // Nothing new: it may stand still, or etcd may be full.
                Some(heard) if *heard == node.mod_revision => return None,
                Some(_) => Duration::ZERO,
                None => silence,
            };
            Some(i128::from(now) - i128::from(clock) - age.as_millis() as i128)
        };
        let least = others.iter().filter_map(lead).min();
        if let Some(least) = least {
            self.ahead = least > AHEAD.as_millis() as i128;
        }
        // Alone, nobody knows better.
        self.ahead &= !others.is_empty();
        let heard = others.iter().map(|it| (it.key.clone(), it.mod_revision));
        self.heard = heard.collect();
        self.ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const NOW: u64 = 1_800_000_000_000;

    fn node(key: &str, now: u64, mod_revision: i64) -> KeyValue {
        KeyValue {
            key: key.into(),
            value: NodeState { name: key, now }.encode(),
            mod_revision,
            ..KeyValue::default()
        }
    }

    #[test]
    fn a_clock_that_is_ahead_of_all_others_is_noticed() {
        let silence = Duration::from_secs(10);
        let mut clocks = Clocks::default();
        let compare =
            |clocks: &mut Clocks, others: &[KeyValue]| clocks.compare(others, NOW, silence);
        assert!(!compare(&mut clocks, &[]));
        // At once where it is further than any silence.
        assert!(compare(&mut clocks, &[node("a", NOW - HOUR, 1)]));
        // Another one is ahead as well, and only that one has said so now.
        let both = [node("a", NOW - HOUR, 1), node("b", NOW - 100, 2)];
        assert!(!compare(&mut clocks, &both));
        let both = [node("a", NOW - HOUR, 3), node("b", NOW + 100, 4)];
        assert!(!compare(&mut clocks, &both));
        let both = [node("a", NOW - 6000, 5), node("b", NOW - 6000, 6)];
        assert!(compare(&mut clocks, &both));
        assert!(compare(&mut clocks, &both));
        let both = [node("a", NOW - 4000, 7), node("b", NOW - 6000, 8)];
        assert!(!compare(&mut clocks, &both));
        // Those that stand still say nothing.
        assert!(!clocks.compare(&both, NOW + HOUR, silence));
        assert!(!compare(&mut clocks, &[]));
    }
}

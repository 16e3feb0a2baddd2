//! A server that is killed at any call by which it changes its files, also while it starts, keeps all that was answered.

use std::path::Path;

use crate::faults::{Faults, try_all};
use crate::lives::{End, Scenario, expect_all_there, scenarios, trace_of};
use crate::process::Server;

/// A start makes no more calls than this.
const CALLS_OF_A_START: usize = 100;

/// A run of a scenario that is killed at a call.
struct Case<'a> {
    scenario: &'a Scenario,
    /// `kill` before the call, or `half` way through it.
    how: &'static str,
    call: usize,
}

impl Case<'_> {
    fn label(&self) -> String {
        let Case {
            scenario,
            how,
            call,
        } = self;
        let mode = scenario.options[1];
        format!("{}, {mode}, {how}@{call}", scenario.name)
    }
}

/// The cases of all scenarios: calls that write to the log and sync it, of which there are many alike, only every `step`-th.
fn cases(scenarios: &[Scenario], step: usize) -> Vec<Case<'_>> {
    let mut cases = Vec::new();
    let mut alike = 0;
    for scenario in scenarios {
        let calls = trace_of(scenario);
        for (call, made) in calls.iter().filter(|call| call.changes()).enumerate() {
            if made.is_of_log() {
                alike += 1;
                if alike % step != 0 {
                    continue;
                }
            }
            let case = |how| Case {
                scenario,
                how,
                call,
            };
            cases.push(case("kill"));
            if made.writes() {
                cases.push(case("half"));
            }
        }
    }
    cases
}

/// Kills starts, one after the other, each one call later than the one before, until one gets by.
fn kill_starts(scenario: &Scenario, watched: &Path, how: &str, label: &str) {
    for call in 0..CALLS_OF_A_START {
        let faults = Faults::plan(format!("{how}@{call}"));
        match Server::try_spawn(faults.server(watched, &scenario.options)) {
            Ok(_) => return,
            Err((status, lines)) => {
                let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
                assert!(
                    killed,
                    "{label}, start with {how}@{call}: {status}: {lines:#?}"
                );
            }
        }
    }
    panic!("{label}: a start never ends");
}

/// Kills servers at calls, and then their starts.
fn kill_at_calls(durability: &'static str, step: usize, every: usize) {
    let scenarios = scenarios(durability);
    let cases: Vec<_> = cases(&scenarios, step).into_iter().step_by(every).collect();
    assert!(cases.len() > 20, "{}", cases.len());
    try_all(&cases, Case::label, |case| {
        let label = case.label();
        let directory = case.scenario.directory();
        let mut known = case.scenario.known.clone();
        let faults = Faults::plan(format!("{}@{}", case.how, case.call));
        let end = case
            .scenario
            .run(directory.path(), &faults, &mut known, |_| {});
        assert!(!matches!(end, End::Refused(..)), "{label}: {end:?}");
        kill_starts(case.scenario, directory.path(), case.how, &label);
        expect_all_there(case.scenario, directory.path(), &mut known, &label);
    });
}

#[test]
fn kill_9_at_a_call_takes_back_nothing_that_was_answered() {
    kill_at_calls("sync", 4, 3);
}

#[test]
#[ignore = "takes minutes: every call, in both modes"]
fn kill_9_at_any_call_takes_back_nothing_that_was_answered() {
    kill_at_calls("sync", 1, 1);
    kill_at_calls("os", 1, 1);
}

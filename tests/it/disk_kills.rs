//! A server that is killed at any call by which it changes its files, also while it starts, keeps all that was answered.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use crate::directory::Directory;
use crate::faults::{Faults, try_all};
use crate::lives::{End, Scenario, expect_all_there, files, scenarios, trace_of, write_files};
use crate::process::Server;
use crate::script::Known;
use crate::trace::Call;

/// A start makes fewer calls.
const CALLS_OF_A_START: usize = 100;

/// A run of a scenario that is killed.
struct Case<'a> {
    scenario: &'a Scenario,
    plan: String,
}

impl Case<'_> {
    fn label(&self) -> String {
        let Case { scenario, plan } = self;
        format!("{}, {}, {plan}", scenario.name, scenario.options[1])
    }

    /// Runs the scenario until it is killed, and returns the directory that is left.
    fn run(&self, known: &mut Known) -> Directory {
        let directory = self.scenario.directory();
        let faults = Faults::plan(&*self.plan);
        let end = self.scenario.run(directory.path(), &faults, known, |_| {});
        // How many calls there are depends a little on how threads get their turns. A start may find the disk full.
        let expected = match &end {
            End::Killed | End::Over(_) => true,
            End::Refused(_, lines) => lines.iter().any(|line| line.contains("No space left")),
        };
        assert!(expected, "{}: {end:?}", self.label());
        directory
    }
}

/// Ways to be killed at a call: before it, or half way through a write, or soon after it has found the disk full.
fn plans(call: usize, made: &Call) -> Vec<String> {
    let mut plans = vec![format!("kill@{call}")];
    if made.writes() {
        plans.push(format!("half@{call}"));
    }
    if made.writes() && made.is_of_log() {
        let full = format!("short@{call},28@{}", call + 1);
        plans.extend((2..5).map(|later| format!("{full},kill@{}", call + later)));
    }
    plans
}

/// The cases of all scenarios: of calls that write to the log and sync it, of which there are many alike, only every `step`-th.
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
            let plans = plans(call, made).into_iter();
            cases.extend(plans.map(|plan| Case { scenario, plan }));
        }
    }
    cases
}

/// Starts a server that is to be killed at a call. Returns whether it was; if not, it got by.
fn kill_start(scenario: &Scenario, watched: &Path, plan: &str, label: &str) -> bool {
    let server = Faults::plan(plan).server(watched, &scenario.options);
    let Err((status, lines)) = Server::try_spawn(server) else {
        return false;
    };
    assert!(
        status.signal() == Some(9),
        "{label}, then a start with {plan}: {status}: {lines:#?}"
    );
    true
}

/// Kills the run.
fn kill_run(case: &Case<'_>) {
    let mut known = case.scenario.known.clone();
    let directory = case.run(&mut known);
    expect_all_there(case.scenario, directory.path(), &mut known, &case.label());
}

/// Kills the run, then one start after the other, each one call later than the one before, until one gets by.
fn kill_run_and_starts(case: &Case<'_>) {
    let label = case.label();
    let mut known = case.scenario.known.clone();
    let directory = case.run(&mut known);
    let how = case.plan.split('@').next().filter(|how| *how == "half");
    let got_by = (0..CALLS_OF_A_START).find(|call| {
        let plan = format!("{}@{call}", how.unwrap_or("kill"));
        !kill_start(case.scenario, directory.path(), &plan, &label)
    });
    assert!(got_by.is_some(), "{label}: no start gets by");
    expect_all_there(case.scenario, directory.path(), &mut known, &label);
}

#[test]
fn kill_9_at_a_call_and_at_each_call_of_a_start_takes_back_nothing_that_was_answered() {
    for (mode, step) in [("sync", 6), ("os", 12)] {
        let scenarios = scenarios(mode);
        // Not every one: calls beside each other are much alike, and so are the starts behind them.
        let some = cases(&scenarios, step).into_iter().step_by(3);
        let (starts, runs): (Vec<_>, Vec<_>) = some.enumerate().partition(|(n, _)| n % 5 == 0);
        let label = |(_, case): &(usize, Case<'_>)| case.label();
        try_all(&runs, label, |(_, case)| kill_run(case));
        try_all(&starts, label, |(_, case)| kill_run_and_starts(case));
    }
}

#[test]
#[ignore = "takes minutes: every call of a run, then every call of the start behind it, each from the same files"]
fn kill_9_at_any_call_and_at_any_call_of_a_start_takes_back_nothing_that_was_answered() {
    for mode in ["sync", "os"] {
        let scenarios = scenarios(mode);
        try_all(&cases(&scenarios, 1), Case::label, |case| {
            kill_run_and_starts(case);
            let label = case.label();
            let mut known = case.scenario.known.clone();
            let directory = case.run(&mut known);
            let left = files(directory.path());
            for call in 0..CALLS_OF_A_START {
                let mut was_killed = false;
                for how in ["kill", "half"] {
                    let (copy, plan) = (Directory::new(), format!("{how}@{call}"));
                    write_files(copy.path(), &left);
                    was_killed |= kill_start(case.scenario, copy.path(), &plan, &label);
                    let label = format!("{label}, then a start with {plan}");
                    expect_all_there(case.scenario, copy.path(), &mut known.clone(), &label);
                }
                if !was_killed {
                    break;
                }
            }
        });
    }
}

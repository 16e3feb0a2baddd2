//! Calls to the disk that fail, one by one or for a while: nothing that was answered is lost, nothing is called damaged, and
//! writes go on as soon as the disk lets them.

use std::fs;

use crate::directory::Directory;
use crate::faults::{Faults, try_all};
use crate::lives::{Answer, End, Event, Scenario, expect_all_there, scenarios, trace_of};
use crate::trace;

/// Calls of these kinds can find the disk full.
const WRITES: &str = "create,mkdir,write,pwrite,rename";

/// Calls of these kinds fail with anything.
const ALL: &str =
    "create,open,opendir,read,pread,write,pwrite,truncate,fsync,fdatasync,rename,unlink,mkdir";

/// Something that goes wrong at one call.
struct Kind {
    /// The plan, by the number of the call.
    plan: fn(usize) -> String,
    /// At which calls it can happen.
    calls: &'static str,
    /// How many requests may fail by it.
    failures: usize,
}

const KINDS: [Kind; 8] = [
    // EIO, ENOSPC, EMFILE
    Kind {
        plan: |n| format!("5@{n}"),
        calls: ALL,
        failures: 1,
    },
    Kind {
        plan: |n| format!("28@{n}"),
        calls: WRITES,
        failures: 1,
    },
    Kind {
        plan: |n| format!("28@{n}"),
        calls: "fsync,fdatasync",
        failures: 1,
    },
    Kind {
        plan: |n| format!("24@{n}"),
        calls: "create,open,opendir",
        failures: 1,
    },
    // A disk that gets full in the middle of a write.
    Kind {
        plan: |n| format!("short@{n},28@{}", n + 1),
        calls: "write,pwrite",
        failures: 1,
    },
    // One that stays full while the server cleans up.
    Kind {
        plan: |n| format!("28@{n}+3"),
        calls: "create,write,pwrite,truncate,rename,unlink",
        failures: 3,
    },
    // EINTR, twice
    Kind {
        plan: |n| format!("4@{n}+2"),
        calls: "create,open,read,pread,write,pwrite,truncate,fsync,fdatasync",
        failures: 0,
    },
    Kind {
        plan: |n| format!("short@{n}+2"),
        calls: "read,pread,write,pwrite",
        failures: 0,
    },
];

/// A run of a scenario in which something goes wrong at a call.
struct Case<'a> {
    scenario: &'a Scenario,
    kind: &'a Kind,
    call: usize,
}

impl Case<'_> {
    fn plan(&self) -> String {
        (self.kind.plan)(self.call)
    }

    fn label(&self) -> String {
        let (name, mode) = (self.scenario.name, self.scenario.options[1]);
        format!("{name}, {mode}, {} of {}", self.plan(), self.kind.calls)
    }
}

/// All cases; of calls that write to the log and sync it, of which there are many alike, only every `step`-th.
fn cases(scenarios: &[Scenario], step: usize) -> Vec<Case<'_>> {
    let (mut cases, mut alike) = (Vec::new(), 0);
    for scenario in scenarios {
        let calls = trace_of(scenario);
        for kind in &KINDS {
            let counted = calls.iter().filter(|call| call.is_one_of(kind.calls));
            for (call, made) in counted.enumerate() {
                if made.is_of_log() {
                    alike += 1;
                    if alike % step != 0 {
                        continue;
                    }
                }
                cases.push(Case {
                    scenario,
                    kind,
                    call,
                });
            }
        }
    }
    cases
}

/// Whether the start was refused. Then it must say so in one line, and blame nothing that is in order.
fn is_refusal(end: &End, label: &str) -> bool {
    let End::Refused(status, lines) = end else {
        return false;
    };
    let reasons = lines.iter().filter(|line| line.starts_with("threadkv: "));
    assert!(
        status.code() == Some(1)
            && reasons.count() == 1
            && lines
                .iter()
                .all(|line| line.starts_with("threadkv: ") || line.contains("Z ["))
            && !lines
                .iter()
                .any(|line| line.contains("damaged") || line.contains("panicked")),
        "{label}: {status}: {lines:#?}"
    );
    true
}

fn try_case(case: &Case<'_>) {
    let label = case.label();
    let (directory, elsewhere) = (case.scenario.directory(), Directory::new());
    let trace = elsewhere.path().join("trace");
    let faults = Faults {
        calls: case.kind.calls.to_owned(),
        trace: Some(trace.clone()),
        ..Faults::plan(case.plan())
    };
    let mut known = case.scenario.known.clone();
    let mut answers = Vec::new();
    let note = |event: Event<'_>| {
        if let Event::Answered(_, answer) = event {
            answers.push(answer);
        }
    };
    let end = case
        .scenario
        .run(directory.path(), &faults, &mut known, note);
    let calls = trace::read(&trace);
    let hit: Vec<_> = calls.iter().filter(|call| call.faulty).collect();
    let hit_calls: Vec<_> = hit.iter().map(|call| (call.name, &call.path)).collect();
    let label = format!("{label}, which hit {hit_calls:?}");
    let failed = answers.iter().filter(|answer| answer.failed()).count();
    if case.kind.failures == 0 || hit.is_empty() {
        assert!(
            matches!(end, End::Over(_)) && failed == 0,
            "{label}: {end:?} {answers:?}"
        );
    } else if !is_refusal(&end, &label) {
        let End::Over(status) = end else {
            panic!("{label}: {end:?}");
        };
        // Only where a sync fails, nobody knows what is on disk, and all that follow may be refused.
        if !hit.iter().any(|call| call.syncs()) {
            assert!(
                failed <= case.kind.failures && !answers.contains(&Answer::Unknown),
                "{label}: {answers:?}"
            );
            assert!(
                !case.scenario.stops || status.success(),
                "{label}: {status}"
            );
        }
    }
    expect_all_there(case.scenario, directory.path(), &mut known, &label);
}

#[test]
fn a_call_that_fails_once_loses_nothing_and_writes_go_on() {
    let scenarios = scenarios("sync");
    // Not every one: calls beside each other are of different kinds, and the same kinds come again.
    let cases = cases(&scenarios, 6).into_iter().step_by(11);
    try_all(&cases.collect::<Vec<_>>(), Case::label, try_case);
}

#[test]
#[ignore = "takes minutes: every call, in both modes"]
fn any_call_that_fails_once_loses_nothing_and_writes_go_on() {
    for mode in ["sync", "os"] {
        let scenarios = scenarios(mode);
        try_all(&cases(&scenarios, 1), Case::label, try_case);
    }
}

/// A run of the first scenario in which calls fail from one of them on, until some step has been answered.
struct Lasting {
    calls: &'static str,
    error: u32,
    from: usize,
    until: usize,
}

impl Lasting {
    fn label(&self) -> String {
        let Lasting {
            calls,
            error,
            from,
            until,
        } = self;
        format!("error {error} at {calls} from number {from} until step {until}")
    }

    /// How many calls there are that can fail.
    fn count(calls: &str, scenario: &Scenario) -> usize {
        let made = trace_of(scenario);
        made.iter().filter(|call| call.is_one_of(calls)).count()
    }

    /// Runs it. `expected` says whether a step, by its number, may be answered like that if there were failures before.
    fn try_on(&self, first: &Scenario, expected: impl Fn(usize, Answer) -> bool) {
        let label = self.label();
        let (directory, elsewhere) = (first.directory(), Directory::new());
        let gate = elsewhere.path().join("it-lasts");
        fs::write(&gate, "").unwrap();
        let faults = Faults {
            calls: self.calls.to_owned(),
            gate: Some(gate.clone()),
            ..Faults::plan(format!("{}@{}+1000000", self.error, self.from))
        };
        let mut known = first.known.clone();
        let mut answers = Vec::new();
        let note = |event: Event<'_>| {
            if let Event::Answered(step, answer) = event {
                answers.push(answer);
                if step == self.until {
                    fs::remove_file(&gate).unwrap();
                }
            }
        };
        let end = first.run(directory.path(), &faults, &mut known, note);
        if !is_refusal(&end, &label) {
            assert!(
                matches!(end, End::Over(status) if status.success()),
                "{label}: {end:?}"
            );
            let mut failing = answers.iter().enumerate();
            let mut failing = failing.by_ref().skip_while(|(_, answer)| !answer.failed());
            assert!(
                failing.all(|(step, answer)| expected(step, *answer)),
                "{label}: {answers:?}"
            );
        }
        expect_all_there(first, directory.path(), &mut known, &label);
    }
}

#[test]
fn a_disk_that_is_full_for_a_while_takes_writes_again_as_soon_as_there_is_room() {
    let first = &scenarios("sync")[0];
    let until = first.steps.len() / 2;
    let lasting = |from| Lasting {
        calls: WRITES,
        error: 28,
        from,
        until,
    };
    let count = Lasting::count(WRITES, first);
    let cases: Vec<Lasting> = (0..count).step_by(3).map(lasting).collect();
    try_all(&cases, Lasting::label, |lasting| {
        lasting.try_on(first, |step, answer| match answer {
            Answer::Refused => step <= until,
            // Deleting what is not there takes no room.
            Answer::Done => step > until || !first.steps[step].puts(),
            Answer::Missing => true,
            Answer::Unknown => false,
        });
    });
}

#[test]
fn without_descriptors_for_a_while_all_writes_go_on() {
    const OPENS: &str = "create,open,opendir";
    let first = &scenarios("sync")[0];
    let until = first.steps.len() * 2 / 3;
    let lasting = |from| Lasting {
        calls: OPENS,
        error: 24,
        from,
        until,
    };
    let cases: Vec<Lasting> = (0..Lasting::count(OPENS, first)).map(lasting).collect();
    try_all(&cases, Lasting::label, |lasting| {
        lasting.try_on(first, |_, answer| answer == Answer::Done);
    });
}

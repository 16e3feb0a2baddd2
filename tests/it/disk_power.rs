//! A power cut at any moment: whatever the disk has kept of what was not synced, the store starts, and all that was synced is there.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::directory::Directory;
use crate::faults::{Faults, Random, setting, try_all};
use crate::lives::{
    Answer, End, Event, Scenario, expect_all_there, files, scenarios, torn_at_the_end, trace_of,
    write_files,
};
use crate::lossy_disk::{Cut, Disk, Kept};
use crate::script::{Known, State};
use crate::trace::{self, Call};

/// A store's life from the empty directory on, through three processes, as it was recorded.
struct History {
    mode: &'static str,
    /// What went wrong in the first process.
    plan: String,
    scenarios: Vec<Scenario>,
    /// The directory that was recorded. What the calls name is in it.
    directory: Directory,
    /// The calls of all processes, one after the other.
    calls: Vec<Call>,
    /// How many calls there had been when each process ended.
    ends: Vec<usize>,
    /// What was there after one step after the other.
    states: Vec<Recorded>,
}

/// What is there after a step.
struct Recorded {
    state: State,
    /// How many calls there had been when the client knew; `None` if it never did.
    known_at: Option<usize>,
}

impl History {
    /// The first two processes are killed, the second one in the middle of a write. The third one ends in order.
    /// `plan` is what goes wrong in the first one. Records so many of them.
    fn record(mode: &'static str, plan: &str, processes: usize) -> History {
        let mut scenarios = scenarios(mode);
        scenarios.truncate(processes);
        scenarios[0].stops = false;
        let directory = Directory::new();
        let mut history = History {
            mode,
            plan: plan.to_owned(),
            directory,
            calls: Vec::new(),
            ends: Vec::new(),
            states: vec![Recorded {
                state: State::new(),
                known_at: Some(0),
            }],
            scenarios: Vec::new(),
        };
        for (number, scenario) in scenarios.iter_mut().enumerate() {
            scenario.files = files(&history.directory.path().join("data"));
            scenario.known = Known(history.states.iter().map(|it| it.state.clone()).collect());
            let faults = match number {
                0 => Faults::plan(plan),
                1 => torn_at_the_end(scenario),
                _ => Faults::default(),
            };
            history.record_process(scenario, faults);
        }
        history.scenarios = scenarios;
        history
    }

    fn record_process(&mut self, scenario: &Scenario, faults: Faults) {
        let elsewhere = Directory::new();
        let path = elsewhere.path().join("trace");
        let plan = faults.plan.clone();
        let faults = Faults {
            trace: Some(path.clone()),
            ..faults
        };
        // How long the trace was when the client saw something, and what is there then.
        let mut seen = Vec::new();
        let mut state = State::new();
        let on = |event: Event<'_>| {
            match event {
                Event::Started(found) => state = found.clone(),
                Event::Answered(step, Answer::Done) => scenario.steps[step].apply(&mut state),
                Event::Answered(_, answer) => assert_ne!(answer, Answer::Unknown, "{plan}"),
            }
            seen.push((fs::metadata(&path).unwrap().len(), state.clone()));
        };
        let mut known = scenario.known.clone();
        let end = scenario.run(self.directory.path(), &faults, &mut known, on);
        assert!(!matches!(end, End::Refused(..)), "{end:?}");
        let before = self.calls.len();
        let calls = trace::read(&path);
        // The first thing seen is a start.
        let answered = seen.len().checked_sub(1);
        for (length, state) in seen {
            let made = calls.iter().take_while(|call| call.end <= length).count();
            self.states.push(Recorded {
                state,
                known_at: Some(before + made),
            });
        }
        if let Some(step) = answered.and_then(|answered| scenario.steps.get(answered)) {
            // The process was killed before it answered.
            let mut state = self.states.last().unwrap().state.clone();
            step.apply(&mut state);
            self.states.push(Recorded {
                state,
                known_at: None,
            });
        }
        self.calls.extend(calls);
        self.ends.push(self.calls.len());
    }

    /// What may be there when the power goes after so many calls, of which so many are on disk for certain.
    fn possible(&self, done: usize, durable: usize) -> Known {
        let is_known = |it: &Recorded, calls| it.known_at.is_some_and(|at| at <= calls);
        let oldest = self.states.iter().rposition(|it| is_known(it, durable));
        let newest = self.states.iter().rposition(|it| is_known(it, done));
        // The next step may be under way.
        let newest = (newest.unwrap() + 1).min(self.states.len() - 1);
        let states = &self.states[oldest.unwrap()..=newest];
        Known(states.iter().map(|it| it.state.clone()).collect())
    }

    /// How many of the first calls have been made durable for certain by the others among them.
    fn durable(&self, done: usize) -> usize {
        if self.mode == "sync" {
            // Nobody is answered before.
            return done;
        }
        // The end of the log: what came before it was synced before it was begun.
        let is_log = |call: &Call| call.path.to_string_lossy().contains("/log-");
        let calls = &self.calls[..done];
        let is_sync_of_end = |at: &usize| {
            let mut before = calls[..*at].iter().rev();
            let written = before.find(|call| call.writes() && is_log(call));
            let call = &calls[*at];
            call.syncs() && call.result == 0 && written.is_some_and(|it| it.path == call.path)
        };
        (0..done).rev().find(is_sync_of_end).unwrap_or(0)
    }

    /// The disk after so many calls.
    fn disk(&self, done: usize) -> Disk {
        let mut disk = Disk::new(self.directory.path());
        for (number, call) in self.calls[..done].iter().enumerate() {
            if self.ends.contains(&number) {
                disk.end_process();
            }
            disk.apply(call);
        }
        disk
    }

    /// Moments before and after each sync. At any other one, the disk may have what it may have at one of these.
    fn moments(&self) -> Vec<usize> {
        let syncs = self
            .calls
            .iter()
            .enumerate()
            .filter(|(_, call)| call.syncs());
        let mut moments: Vec<usize> = syncs.flat_map(|(at, _)| [at, at + 1]).collect();
        moments.push(self.calls.len());
        moments.dedup();
        moments
    }
}

/// What is left of a history if the power goes at some moment.
fn cuts(seed: u64, chances: u64) -> Vec<(Cut, u64)> {
    let mut cuts = Vec::new();
    for names in [Kept::All, Kept::Nothing] {
        for (bytes, lengths) in [
            (Kept::All, Kept::All),
            (Kept::Nothing, Kept::Nothing),
            (Kept::Nothing, Kept::All),
        ] {
            let cut = Cut {
                names,
                bytes,
                lengths,
                sector: 512,
            };
            cuts.push((cut, seed));
        }
    }
    for seed in seed..seed + chances {
        let mut random = Random::new(seed);
        let mut kept = || {
            let kinds = [Kept::All, Kept::Nothing, Kept::First, Kept::Any, Kept::Any];
            kinds[random.below(kinds.len())]
        };
        let (names, bytes, lengths) = (kept(), kept(), kept());
        let cut = Cut {
            names,
            bytes,
            lengths,
            sector: [512, 4096][random.below(2)],
        };
        cuts.push((cut, seed));
    }
    cuts
}

/// How power is cut.
#[derive(Clone, Copy)]
struct Cutting {
    seed: u64,
    /// How many times chance says what is left, besides all and nothing of each kind.
    chances: u64,
    /// One in so many of these is tried at each moment, and other ones at the next moment.
    step: usize,
}

impl Cutting {
    /// What takes a few seconds.
    fn some(chances: u64) -> Cutting {
        Cutting {
            seed: 1,
            chances,
            step: 7,
        }
    }
}

/// Cuts the power at each of some moments, and starts a server with what may be left.
fn cut_at(history: &History, moments: Range<usize>, cutting: Cutting) {
    let mut all = history.moments();
    all.retain(|done| moments.contains(done));
    // What has been tried, with what had to be there.
    let tried = Mutex::new(HashSet::new());
    let label = |done: &usize| {
        let last = done.checked_sub(1).map(|last| &history.calls[last]);
        let last = last.map(|call| (call.name, call.path.file_name()));
        let History { mode, plan, .. } = history;
        format!("{mode}, {plan}, power cut after {done} calls, the last one {last:?}")
    };
    try_all(&all, label, |done| {
        let disk = history.disk(*done);
        let durable = history.durable(*done);
        let known = history.possible(*done, durable);
        let first = cutting.seed + *done as u64 * 1_000_000;
        let cuts = cuts(first, cutting.chances).into_iter();
        for (cut, seed) in cuts.skip(done % cutting.step).step_by(cutting.step) {
            let files = disk.cut(cut, &mut Random::new(seed));
            let mut hasher = DefaultHasher::new();
            (&files, durable).hash(&mut hasher);
            if !tried.lock().unwrap().insert(hasher.finish()) {
                continue;
            }
            let label = format!("{}, {cut:?}, seed {seed}", label(done));
            let directory = Directory::new();
            write_files(directory.path(), &files);
            let scenario = &history.scenarios[0];
            expect_all_there(scenario, directory.path(), &mut known.clone(), &label);
        }
    });
}

/// Plans in which the disk gets full for a moment in the middle of a write to the log, for each of these that fills a sector.
fn full_disks(mode: &'static str) -> Vec<String> {
    let calls = trace_of(&scenarios(mode)[0]);
    let counted = calls.iter().filter(|call| call.changes()).enumerate();
    let is_long = |call: &Call| call.data.iter().filter(|byte| **byte != 0).count() > 1024;
    let writes = counted.filter(|(_, call)| call.writes() && call.is_of_log() && is_long(call));
    writes
        .map(|(call, _)| format!("short@{call},28@{}", call + 1))
        .collect()
}

/// The same with kills before each sync: what was written is not on disk yet, but the next process finds it.
fn kills(mode: &'static str) -> Vec<String> {
    let calls = trace_of(&scenarios(mode)[0]);
    let counted = calls.iter().filter(|call| call.changes()).enumerate();
    let syncs = counted.filter(|(_, call)| call.syncs());
    syncs.map(|(call, _)| format!("kill@{call}")).collect()
}

/// Cuts the power soon after the disk was full.
fn cut_after_full_disk(mode: &'static str, plan: &str, cutting: Cutting) {
    /// In so many calls a few batches are written.
    const SOON: usize = 25;
    let history = History::record(mode, plan, 1);
    let full = history.calls.iter().position(|call| call.faulty).unwrap();
    cut_at(&history, full..full + SOON, cutting);
}

/// Cuts the power in the process that comes after one that was killed.
fn cut_after_kill(mode: &'static str, plan: &str, cutting: Cutting) {
    let history = History::record(mode, plan, 2);
    cut_at(&history, history.ends[0]..usize::MAX, cutting);
}

#[test]
fn a_power_cut_takes_back_nothing_that_was_answered_with_sync() {
    let history = History::record("sync", "", 3);
    cut_at(&history, 0..usize::MAX, Cutting::some(6));
}

#[test]
fn a_power_cut_takes_back_nothing_that_was_synced_with_os() {
    let history = History::record("os", "", 3);
    cut_at(&history, 0..usize::MAX, Cutting::some(8));
}

/// A refused write was cut off again, and does not come back or get in the way of the next one.
#[test]
fn a_power_cut_does_not_bring_back_what_a_full_disk_refused() {
    for mode in ["sync", "os"] {
        for plan in full_disks(mode).iter().step_by(8) {
            cut_after_full_disk(mode, plan, Cutting::some(20));
        }
    }
}

/// The first process is killed between a write to the log and its sync. What the next one shows from it is on disk.
#[test]
fn a_power_cut_takes_back_nothing_that_a_client_has_read() {
    let calls = trace_of(&scenarios("sync")[0]);
    let changes: Vec<&Call> = calls.iter().filter(|call| call.changes()).collect();
    let is_sync_of_batch = |&at: &usize| {
        let batch = changes[at - 1];
        changes[at].syncs() && batch.writes() && batch.is_of_log()
    };
    let syncs: Vec<usize> = (1..changes.len()).filter(is_sync_of_batch).collect();
    for sync in [syncs[syncs.len() / 3], syncs[syncs.len() / 2]] {
        cut_after_kill("sync", &format!("kill@{sync}"), Cutting::some(1));
    }
}

#[test]
fn a_power_cut_after_a_kill_takes_back_nothing_that_a_client_has_seen() {
    for mode in ["sync", "os"] {
        for plan in kills(mode).iter().skip(7).step_by(24) {
            cut_after_kill(mode, plan, Cutting::some(2));
        }
    }
}

#[test]
#[ignore = "takes minutes: TESTS_CHANCES (200) at each moment, from TESTS_SEED (1) on"]
fn no_chance_lets_a_power_cut_take_back_what_was_answered() {
    let cutting = Cutting {
        seed: setting("TESTS_SEED", 1),
        chances: setting("TESTS_CHANCES", 200),
        step: 1,
    };
    for mode in ["sync", "os"] {
        let history = History::record(mode, "", 3);
        cut_at(&history, 0..usize::MAX, cutting);
        for plan in full_disks(mode) {
            cut_after_full_disk(mode, &plan, cutting);
        }
        for plan in kills(mode) {
            let chances = cutting.chances / 20;
            cut_after_kill(mode, &plan, Cutting { chances, ..cutting });
        }
    }
}

/// The model knows all calls that change something: with all of them, it has what is there.
#[test]
fn the_recorded_calls_make_the_directory() {
    for mode in ["sync", "os"] {
        let history = History::record(mode, "", 3);
        let all = Cut {
            names: Kept::All,
            bytes: Kept::All,
            lengths: Kept::All,
            sector: 512,
        };
        let mut recorded: Vec<(PathBuf, Vec<u8>)> = history
            .disk(history.calls.len())
            .cut(all, &mut Random::new(1));
        recorded.sort();
        let there = files(history.directory.path());
        let names = |files: &[(PathBuf, Vec<u8>)]| {
            let each = files
                .iter()
                .map(|(path, bytes)| (path.clone(), bytes.len()));
            each.collect::<Vec<_>>()
        };
        assert_eq!(names(&recorded), names(&there), "{mode}");
        assert!(recorded == there, "{mode}");
    }
}

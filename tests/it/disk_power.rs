//! A power cut at any moment takes back nothing that was answered, whatever the disk has kept of what was not synced.
//!
//! The history of a server's directory is recorded (`tests/faults`), and the directory is made anew as it may be after a power cut
//! behind each call: with what was synced, and of the rest nothing, everything, or some sectors and some names.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use crate::directory::Directory;
use crate::faults::{Faults, Random, setting, try_all};
use crate::lives::{Answer, Event, Scenario, expect_all_there, scenarios};
use crate::script::Known;
use crate::trace::{self, Call};

const SECTOR: usize = 512;

/// The flag of a file that is emptied when it is opened.
const TRUNCATES: u64 = 0o1000;

/// What a power cut keeps of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    Nothing,
    Everything,
    /// All names, and of contents only what was synced; and the other way round.
    Names,
    Contents,
    /// Random sectors, and the first few of the changes of names.
    Some(u64),
}

/// A change of a file's contents.
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

#[derive(Default)]
struct File {
    now: Vec<u8>,
    synced: Vec<u8>,
    /// What has happened since.
    changes: Vec<Change>,
}

impl File {
    fn change(&mut self, change: Change) {
        apply(&mut self.now, &change, |_| true);
        self.changes.push(change);
    }

    fn after_power_cut(&self, keeps: Keeps, random: &mut Random) -> Vec<u8> {
        match keeps {
            Keeps::Nothing | Keeps::Names => self.synced.clone(),
            Keeps::Everything | Keeps::Contents => self.now.clone(),
            Keeps::Some(_) => {
                let mut bytes = self.synced.clone();
                for change in &self.changes {
                    apply(&mut bytes, change, |_| random.chance());
                }
                bytes
            }
        }
    }
}

/// Carries out a change, or those sectors of a write that are wanted.
fn apply(bytes: &mut Vec<u8>, change: &Change, mut wanted: impl FnMut(usize) -> bool) {
    match change {
        Change::Cut(length) => {
            if wanted(0) {
                bytes.resize(*length, 0);
            }
        }
        Change::Write(offset, data) => {
            let end = offset + data.len();
            let mut from = *offset;
            while from < end {
                let to = (from + 1).next_multiple_of(SECTOR).min(end);
                if wanted(from / SECTOR) {
                    bytes.resize(bytes.len().max(to), 0);
                    bytes[from..to].copy_from_slice(&data[from - offset..to - offset]);
                }
                from = to;
            }
        }
    }
}

/// A change of a name: where a file is from now on, and where it is no more.
type Renaming = (Option<(PathBuf, usize)>, Option<PathBuf>);

/// All files are in one directory.
fn name(path: &Path) -> PathBuf {
    path.file_name().unwrap().into()
}

/// The directory as it is, and as it was synced.
#[derive(Default)]
struct Disk {
    files: Vec<File>,
    open: HashMap<u32, usize>,
    now: BTreeMap<PathBuf, usize>,
    synced: BTreeMap<PathBuf, usize>,
    renamings: Vec<Renaming>,
}

fn rename(names: &mut BTreeMap<PathBuf, usize>, (to, from): &Renaming) {
    if let Some(from) = from {
        names.remove(from);
    }
    if let Some((to, file)) = to {
        names.insert(to.clone(), *file);
    }
}

impl Disk {
    /// A disk on which these files are, all synced.
    fn with(scenario: &Scenario) -> Disk {
        let mut disk = Disk::default();
        for (path, bytes) in &scenario.files {
            disk.synced.insert(name(path), disk.files.len());
            disk.files.push(File {
                now: bytes.clone(),
                synced: bytes.clone(),
                changes: Vec::new(),
            });
        }
        disk.now = disk.synced.clone();
        disk
    }

    fn rename(&mut self, renaming: Renaming) {
        rename(&mut self.now, &renaming);
        self.renamings.push(renaming);
    }

    fn take(&mut self, call: &Call) {
        if call.result < 0 {
            return;
        }
        match call.name {
            // The directory itself, and the one above, which are opened to be synced.
            "open"
                if call.path.ends_with("data")
                    || call
                        .path
                        .parent()
                        .is_none_or(|above| !above.ends_with("data")) => {}
            "create" | "open" => {
                let file = match self.now.get(&name(&call.path)) {
                    Some(file) => *file,
                    None => {
                        self.files.push(File::default());
                        let file = self.files.len() - 1;
                        self.rename((Some((name(&call.path), file)), None));
                        file
                    }
                };
                self.open.insert(call.file, file);
                if call.length & TRUNCATES != 0 && !self.files[file].now.is_empty() {
                    self.files[file].change(Change::Cut(0));
                }
            }
            "write" | "pwrite" | "truncate" => {
                let file = &mut self.files[self.open[&call.file]];
                let change = match call.name {
                    "truncate" => Change::Cut(call.length as usize),
                    _ => Change::Write(call.offset as usize, call.data.clone()),
                };
                file.change(change);
                assert_eq!(file.now.len() as i64, call.file_length, "{call:?}");
            }
            "fsync" | "fdatasync" => {
                if let Some(file) = self.open.get(&call.file) {
                    let file = &mut self.files[*file];
                    file.synced = file.now.clone();
                    file.changes.clear();
                } else if call.path.ends_with("data") {
                    self.synced = self.now.clone();
                    self.renamings.clear();
                }
            }
            "rename" => {
                let file = self.now[&name(&call.path)];
                let to = (name(&call.target), file);
                self.rename((Some(to), Some(name(&call.path))));
            }
            "unlink" => self.rename((None, Some(name(&call.path)))),
            _ => {}
        }
    }

    /// The files as they may be after a power cut.
    fn after_power_cut(&self, keeps: Keeps) -> BTreeMap<PathBuf, Vec<u8>> {
        let seed = match keeps {
            Keeps::Some(seed) => seed,
            _ => 0,
        };
        let mut random = Random::new(seed);
        let mut names = self.synced.clone();
        let renamings = match keeps {
            Keeps::Nothing | Keeps::Contents => 0,
            Keeps::Everything | Keeps::Names => self.renamings.len(),
            Keeps::Some(_) => random.below(self.renamings.len() + 1),
        };
        for renaming in &self.renamings[..renamings] {
            rename(&mut names, renaming);
        }
        let contents = |(path, file): (PathBuf, usize)| {
            (path, self.files[file].after_power_cut(keeps, &mut random))
        };
        names.into_iter().map(contents).collect()
    }
}

/// A directory after a power cut, and what may be in it.
struct Case<'a> {
    scenario: &'a Scenario,
    label: String,
    files: BTreeMap<PathBuf, Vec<u8>>,
    known: Known,
}

/// Records a run, and makes the directories of power cuts behind every `step`-th call.
fn cases(scenario: &Scenario, step: usize, seeds: u64) -> Vec<Case<'_>> {
    let (directory, recording) = (scenario.directory(), Directory::new());
    let path = recording.path().join("trace");
    let (mut answered, mut before) = (Vec::new(), scenario.known.clone());
    let faults = Faults::trace(path.clone());
    let on = |event: Event<'_>| match event {
        Event::Started(found) => assert!(scenario.known.0.contains(found)),
        Event::Answered(number, answer) => {
            assert!(matches!(answer, Answer::Done | Answer::Missing));
            answered.push((number, fs::metadata(&path).unwrap().len()));
        }
    };
    scenario.run(directory.path(), &faults, &mut before, on);
    let mut disk = Disk::with(scenario);
    let mut cases = Vec::new();
    for (n, call) in trace::read(&path).iter().enumerate() {
        disk.take(call);
        if !call.changes() || n % step != 0 {
            continue;
        }
        let mut known = scenario.known.clone();
        let done = answered.iter().filter(|(_, at)| *at <= call.end).count();
        scenario.steps[..done]
            .iter()
            .for_each(|it| known.carried_out(it));
        if let Some(next) = scenario.steps.get(done) {
            known.asked(next);
        }
        let plain = [
            Keeps::Nothing,
            Keeps::Everything,
            Keeps::Names,
            Keeps::Contents,
        ];
        let random = (0..seeds).map(|seed| Keeps::Some(seed + 1 + n as u64));
        for keeps in plain.into_iter().chain(random) {
            cases.push(Case {
                scenario,
                label: format!(
                    "{}, behind call {n} ({}), {keeps:?}",
                    scenario.name, call.name
                ),
                files: disk.after_power_cut(keeps),
                known: known.clone(),
            });
        }
    }
    cases
}

fn cut_power(step: usize, seeds: u64) {
    let scenarios = scenarios("sync");
    let cases: Vec<Case<'_>> = scenarios
        .iter()
        .flat_map(|it| cases(it, step, seeds))
        .collect();
    assert!(cases.len() > 20, "{}", cases.len());
    try_all(
        &cases,
        |case| case.label.clone(),
        |case| {
            let directory = Directory::new();
            let data = directory.path().join("data");
            fs::create_dir(&data).unwrap();
            for (path, bytes) in &case.files {
                fs::write(data.join(path), bytes).unwrap();
            }
            expect_all_there(
                case.scenario,
                directory.path(),
                &mut case.known.clone(),
                &case.label,
            );
        },
    );
}

#[test]
fn a_power_cut_takes_back_nothing_that_was_answered() {
    cut_power(9, 1);
}

/// `THREADKV_POWER_SEEDS` says how many random disks there are behind each call.
#[test]
#[ignore = "takes minutes: a power cut behind every call"]
fn a_power_cut_behind_any_call_takes_back_nothing_that_was_answered() {
    cut_power(1, setting("THREADKV_POWER_SEEDS", 6));
}

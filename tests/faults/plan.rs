//! What is to fail, from the environment.
//!
//! * `FAULTS_DIRECTORY`: the directory, as the server names it: calls for paths that begin with it count.
//! * `FAULTS_TRACE`: a file elsewhere, to which the calls are written down; none if it is not set.
//! * `FAULTS_CALLS`: which kinds of calls are counted, by their names with commas between them. Without it, all that change
//!   something or sync it.
//! * `FAULTS_PLAN`: what happens at which calls, with commas between them. The first call that counts is number 0.
//!   `kill@7` kills the process before call 7. `half@7` does so too, and carries out half of it if it is a write. `short@7+2` cuts
//!   calls 7 and 8 short, which must be writes or reads. `28@7+2` lets them fail with the error of that number. `wait@7+2` holds them
//!   up while the file of `FAULTS_WHILE` exists, and with them all calls behind them.
//! * `FAULTS_WHILE`: a file; calls fail only while it exists.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;
use std::{env, ops::Range};

use libc::c_int;

use crate::trace::{Kind, Trace};

/// What happens instead of a call.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    Kill,
    Half,
    Short,
    Wait,
    Error(c_int),
}

/// What was asked for.
pub(crate) struct Plan {
    pub(crate) directory: Vec<u8>,
    pub(crate) trace: Trace,
    /// Whether calls of a kind count, by its number.
    counts: [bool; Kind::ALL.len()],
    faults: Vec<(Range<u64>, Fault)>,
    gate: Option<CString>,
}

impl Plan {
    /// The plan; `None` if there is none, and everything passes through.
    pub(crate) fn get() -> Option<&'static Plan> {
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        PLAN.get_or_init(Plan::read).as_ref()
    }

    fn read() -> Option<Plan> {
        let path = |name| env::var_os(name).map(OsString::into_vec);
        let text = |name| env::var(name).unwrap_or_default();
        let calls = text("FAULTS_CALLS");
        let counts = Kind::ALL.map(|kind| match &*calls {
            "" => kind.changes(),
            calls => calls.split(',').any(|name| name == kind.name()),
        });
        let plan = text("FAULTS_PLAN");
        let faults = plan.split(',').filter(|part| !part.is_empty());
        Some(Plan {
            directory: path("FAULTS_DIRECTORY")?,
            trace: Trace::create(path("FAULTS_TRACE")),
            counts,
            // What cannot be read must not look like a fault that the server survived.
            faults: faults
                .map(|part| read_fault(part).unwrap_or_else(|| panic!("{part:?}")))
                .collect(),
            gate: path("FAULTS_WHILE").and_then(|path| CString::new(path).ok()),
        })
    }

    /// Counts a call, and says what is to happen instead of it.
    pub(crate) fn fault(&self, kind: Kind, counted: &mut u64) -> Option<Fault> {
        if !self.counts[kind as usize] {
            return None;
        }
        let number = *counted;
        *counted += 1;
        let mut faults = self.faults.iter();
        let (_, fault) = faults.find(|(calls, _)| calls.contains(&number))?;
        self.is_open().then_some(*fault)
    }

    /// Whether calls may fail now.
    #[expect(unsafe_code)]
    pub(crate) fn is_open(&self) -> bool {
        let exists = |path: &CString| {
            // SAFETY: the path ends in a NUL.
            let found = unsafe {
                libc::syscall(
                    libc::SYS_faccessat,
                    libc::AT_FDCWD,
                    path.as_ptr(),
                    libc::F_OK,
                )
            };
            found == 0
        };
        self.gate.as_ref().is_none_or(exists)
    }
}

/// Such as `28@7+2`.
fn read_fault(text: &str) -> Option<(Range<u64>, Fault)> {
    let (what, calls) = text.split_once('@')?;
    let (first, count) = calls.split_once('+').unwrap_or((calls, "1"));
    let (first, count): (u64, u64) = (first.parse().ok()?, count.parse().ok()?);
    let fault = match what {
        "kill" => Fault::Kill,
        "half" => Fault::Half,
        "short" => Fault::Short,
        "wait" => Fault::Wait,
        number => Fault::Error(number.parse().ok()?),
    };
    Some((first..first.saturating_add(count), fault))
}

//! Processes that end with this one, whatever happens to it.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::interrupt;

/// Long enough for anything that happens at all.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running process. Killed when dropped.
pub struct Child {
    pub name: &'static str,
    process: process::Child,
    log: PathBuf,
}

impl Child {
    /// Starts a program whose output goes to a file in that directory.
    pub fn spawn(
        name: &'static str,
        mut command: Command,
        directory: &Path,
    ) -> Result<Child, String> {
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let errors = output.try_clone().map_err(|error| error.to_string())?;
        command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .current_dir(directory)
            .process_group(0); // a ^C is for this process, which then stops the others in order
        die_with_this_thread(&mut command);
        let process = command
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        Ok(Child { name, process, log })
    }

    /// Asks until there is an answer; an error if the process ends before.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        mut ask: impl FnMut() -> Option<T>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask() {
                return Ok(answer);
            }
            if let Some(status) = self.status()? {
                return Err(format!("{} ended ({status}): {}", self.name, self.output()));
            }
            if Instant::now() > deadline {
                return Err(format!("{}: waited in vain for {what}", self.name));
            }
            interrupt::check()?;
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the process has ended well; returns what it printed.
    pub fn finish(mut self) -> Result<String, String> {
        let status = self.process.wait().map_err(|error| error.to_string())?;
        let output = self.output();
        if !status.success() {
            return Err(format!("{} ended ({status}): {output}", self.name));
        }
        Ok(output)
    }

    /// Has the process end in good order.
    pub fn stop(mut self) -> Result<(), String> {
        self.signal(Signal::TERM);
        let status = self.process.wait().map_err(|error| error.to_string())?;
        // Some end well, and some by the signal.
        if status.success() || status.signal() == Some(Signal::TERM.as_raw()) {
            return Ok(());
        }
        Err(format!("{} ended ({status}): {}", self.name, self.output()))
    }

    fn signal(&self, signal: Signal) {
        // Fails only for one that has ended, which whoever talks to it next will notice.
        let _ = kill_process(Pid::from_child(&self.process), signal);
    }

    /// Bytes resident.
    pub fn resident(&self) -> Result<u64, String> {
        let kilobytes = self.about("VmRSS")?;
        Ok(kilobytes * 1024)
    }

    pub fn threads(&self) -> Result<u64, String> {
        self.about("Threads")
    }

    /// A figure that the kernel keeps about the process.
    fn about(&self, field: &str) -> Result<u64, String> {
        let path = format!("/proc/{}/status", self.process.id());
        let status = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let figure = line.and_then(|line| line.split_ascii_whitespace().nth(1)?.parse().ok());
        figure.ok_or_else(|| format!("{path}: no {field} for {}", self.name))
    }

    fn status(&mut self) -> Result<Option<ExitStatus>, String> {
        let status = self.process.try_wait();
        status.map_err(|error| format!("{}: {error}", self.name))
    }

    fn output(&self) -> String {
        let output = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&output).trim().to_owned()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Has the kernel kill the process when the thread that starts it ends, be it by `kill -9`. So it is for the main
/// thread to start them.
#[expect(unsafe_code, reason = "only the new process itself can ask for it")]
fn die_with_this_thread(command: &mut Command) {
    let ask = || -> io::Result<()> { Ok(set_parent_process_death_signal(Some(Signal::KILL))?) };
    // SAFETY: between fork and exec only what is safe in a signal handler may be done, and this is one system call.
    unsafe { command.pre_exec(ask) };
}

/// The path of a program. Some are where only root looks for them.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

//! How the kernel schedules our threads.

/// Has threads that are woken not preempt the one that woke them, in this process from now on.
///
/// A request passes through four threads, and most of its processor time goes into waking them. Where each one finishes
/// what it is at before the next one runs, the next one finds more to do, and is woken less often.
#[expect(unsafe_code)]
pub fn prefer_throughput() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads the parameters, and 0 is this thread, from which those it starts inherit.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) } != 0 {
        log::debug!(
            "cannot set the scheduling class: {}",
            std::io::Error::last_os_error()
        );
    }
}

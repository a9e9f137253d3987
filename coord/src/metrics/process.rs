//! What the process takes of its machine.

use metrics::gauge;
use procfs::{WithCurrentSystemInfo as _, process::Process};

use super::names;

/// Tells it. What can't be found out is left out.
pub(super) fn tell() {
    let Ok(process) = Process::myself() else { return };
    if let Ok(stat) = process.stat() {
        let ticks = procfs::ticks_per_second() as f64;
        gauge!(names::CPU_SECONDS.name).set((stat.utime + stat.stime) as f64 / ticks);
        gauge!(names::RESIDENT_BYTES.name).set(stat.rss_bytes().get() as f64);
        gauge!(names::VIRTUAL_BYTES.name).set(stat.vsize as f64);
        gauge!(names::THREADS.name).set(stat.num_threads as f64);
        if let Ok(boot) = procfs::boot_time_secs() {
            gauge!(names::START_SECONDS.name).set(boot as f64 + stat.starttime as f64 / ticks);
        }
    }
    if let Ok(open) = process.fd_count() {
        gauge!(names::OPEN_FDS.name).set(open as f64);
    }
    if let Ok(limits) = process.limits()
        && let procfs::process::LimitValue::Value(most) = limits.max_open_files.soft_limit
    {
        gauge!(names::MAX_FDS.name).set(most as f64);
    }
}

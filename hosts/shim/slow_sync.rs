//! A slow disk, for one process: loaded with `LD_PRELOAD`, it makes each `fdatasync` and `fsync` take longer, by as many
//! milliseconds as the file that `SLOW_SYNC_FILE` names says at that moment. Nothing else is touched. What fails here
//! makes nothing slower.
//!
//! The sync itself comes after the wait: what is acknowledged is as durable as ever.

use std::{
    env,
    ffi::{c_int, c_long},
    fs, thread,
    time::Duration,
};

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

#[cfg(target_arch = "x86_64")]
const FSYNC: c_long = 74;
#[cfg(target_arch = "x86_64")]
const FDATASYNC: c_long = 75;
#[cfg(not(target_arch = "x86_64"))]
const FSYNC: c_long = 82;
#[cfg(not(target_arch = "x86_64"))]
const FDATASYNC: c_long = 83;

fn wait() {
    let millis = env::var_os("SLOW_SYNC_FILE")
        .and_then(|file| fs::read_to_string(file).ok())
        .and_then(|text| text.trim().parse().ok());
    if let Some(millis) = millis.filter(|millis| *millis > 0) {
        thread::sleep(Duration::from_millis(millis));
    }
}

/// As the C library's, later.
#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(file: c_int) -> c_int {
    wait();
    // SAFETY: this is the system call that the caller asked for, with the caller's descriptor; it takes no memory.
    (unsafe { syscall(FDATASYNC, file) }) as c_int
}

/// As the C library's, later.
#[unsafe(no_mangle)]
pub extern "C" fn fsync(file: c_int) -> c_int {
    wait();
    // SAFETY: as above.
    (unsafe { syscall(FSYNC, file) }) as c_int
}

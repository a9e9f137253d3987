//! What a process has used, and what of a file is in the page cache.

use std::{
    fs::{self, File},
    io::Read,
    num::NonZeroU64,
    os::unix::fs::MetadataExt,
    path::Path,
};

use anyhow::{Result, anyhow};
use rustix::fs::{Advice, fadvise};

/// The most memory that this process has had resident so far, in KiB.
pub(super) fn peak_kib() -> Result<u64> {
    number_in("/proc/self/status", "VmHWM:")
}

/// The memory that this process has resident now, in KiB.
pub(super) fn resident_kib() -> Result<u64> {
    number_in("/proc/self/status", "VmRSS:")
}

/// Bytes that this process has made the disk read: what came out of the page cache does not count.
pub(super) fn disk_read() -> Result<u64> {
    number_in("/proc/self/io", "read_bytes:")
}

fn number_in(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or_else(|| anyhow!("no {name} in {path}"))?.parse()?)
}

/// Leaves nothing of the file in the page cache.
pub(super) fn cool(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    // Only what is on the disk can be dropped.
    file.sync_all()?;
    fadvise(&file, 0, NonZeroU64::new(file.metadata()?.len()), Advice::DontNeed)?;
    Ok(())
}

/// Reads the file into the page cache.
pub(super) fn warm(path: &Path) -> Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

/// How long a file is, and how much of the disk it takes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Size {
    pub(super) len: u64,
    pub(super) allocated: u64,
}

impl Size {
    pub(super) fn of(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path)?;
        // Blocks are counted in 512 bytes, whatever the file system's are.
        Ok(Self { len: metadata.len(), allocated: metadata.blocks() * 512 })
    }

    pub(super) fn max(self, other: Self) -> Self {
        Self { len: self.len.max(other.len), allocated: self.allocated.max(other.allocated) }
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(f, "{:>8.1} MiB long, {:>8.1} MiB on the disk", mib(self.len), mib(self.allocated))
    }
}

//! A medium in memory that records what is done to it, fails when told to, and gives the images that a crash leaves.

use std::{
    io,
    sync::{Arc, Mutex},
};

use redb::StorageBackend;

use super::Rng;

/// What tears: a sector is written whole or not at all.
pub const SECTOR: usize = 512;

/// One thing done to a medium.
#[derive(Clone, Debug)]
pub enum Io {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
    /// A sync that failed: what was not durable may be or not, and no later sync makes it so.
    FailedSync,
    /// Not I/O: the test says that this much was acknowledged.
    Acknowledged(usize),
}

#[derive(Debug, Default)]
struct Inner {
    live: Vec<u8>,
    trace: Vec<Io>,
    /// Fails the I/O with this number, and those after it if `for_good`.
    fail: Option<(u64, bool)>,
    count: u64,
    frozen: bool,
    untraced: bool,
}

/// Clones share it, so that a test can look into it while a store has it.
#[derive(Clone, Debug, Default)]
pub struct Medium(Arc<Mutex<Inner>>);

impl Medium {
    pub fn of(image: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Inner { live: image, ..Inner::default() })))
    }

    /// One that records nothing, for long runs.
    pub fn untraced(image: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Inner { live: image, untraced: true, ..Inner::default() })))
    }

    pub fn image(&self) -> Vec<u8> {
        self.0.lock().unwrap().live.clone()
    }

    /// How many writes, resizes and syncs were tried.
    pub fn count(&self) -> u64 {
        self.0.lock().unwrap().count
    }

    pub fn fail_at(&self, count: u64, for_good: bool) {
        self.0.lock().unwrap().fail = Some((count, for_good));
    }

    /// From now on everything fails and nothing is recorded.
    pub fn freeze(&self) {
        self.0.lock().unwrap().frozen = true;
    }

    pub fn acknowledge(&self, n: usize) {
        self.0.lock().unwrap().trace.push(Io::Acknowledged(n));
    }

    pub fn trace(&self) -> Vec<Io> {
        self.0.lock().unwrap().trace.clone()
    }

    fn act(&self, io: Io, act: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        let inner = &mut *inner;
        if inner.frozen {
            return Err(io::Error::other("the medium is gone"));
        }
        let n = inner.count;
        inner.count += 1;
        let fails = inner.fail.is_some_and(|(at, for_good)| n == at || (for_good && n > at));
        if fails {
            match io {
                Io::Sync => inner.trace.push(Io::FailedSync),
                // Half of it got there.
                Io::Write(at, data) => {
                    let half = data[..data.len() / 2].to_vec();
                    inner.live[at as usize..at as usize + half.len()].copy_from_slice(&half);
                    inner.trace.push(Io::Write(at, half));
                }
                Io::SetLen(_) | Io::FailedSync | Io::Acknowledged(_) => {}
            }
            return Err(io::Error::other(format!("injected at I/O {n}")));
        }
        act(&mut inner.live)?;
        if !inner.untraced {
            inner.trace.push(io);
        }
        Ok(())
    }
}

impl StorageBackend for Medium {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.0.lock().unwrap();
        let from = offset as usize;
        let data = inner.live.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.act(Io::SetLen(len), |live| {
            live.resize(len as usize, 0);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.act(Io::Sync, |_| Ok(()))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.act(Io::Write(offset, data.to_vec()), |live| {
            let from = offset as usize;
            let to = live.get_mut(from..from + data.len()).ok_or(io::ErrorKind::InvalidInput)?;
            to.copy_from_slice(data);
            Ok(())
        })
    }
}

/// A medium as the disk has it: what is durable, and what is on the way.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    durable: Vec<u8>,
    pending: Vec<Io>,
}

/// How much of what was not durable a crash leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// Nothing: the power failed.
    Nothing,
    /// All: only the process was killed.
    All,
    /// Any sectors of any writes, in any order.
    Some(u64),
    /// Only the newest so many writes.
    Newest(usize),
}

impl Disk {
    /// A disk with this on it.
    pub fn of(image: Vec<u8>) -> Self {
        Self { durable: image, pending: Vec::new() }
    }

    /// Does what the trace says; a failed sync leaves some of what was pending, and the rest never gets there.
    pub fn act(&mut self, io: &Io, rng: &mut Rng) {
        match io {
            Io::Write(..) | Io::SetLen(_) => self.pending.push(io.clone()),
            Io::Sync => {
                self.durable = self.image(Left::All, rng);
                self.pending.clear();
            }
            Io::FailedSync => {
                self.durable = self.image(Left::Some(50), rng);
                self.pending.clear();
            }
            Io::Acknowledged(_) => {}
        }
    }

    /// What is there after a crash now.
    pub fn image(&self, left: Left, rng: &mut Rng) -> Vec<u8> {
        let mut image = self.durable.clone();
        for (n, io) in self.pending.iter().enumerate() {
            let stays = |rng: &mut Rng| match left {
                Left::Nothing => false,
                Left::All => true,
                Left::Some(percent) => rng.chance(percent),
                Left::Newest(count) => n + count >= self.pending.len(),
            };
            match io {
                Io::SetLen(len) => {
                    if stays(rng) {
                        image.resize(*len as usize, 0);
                    }
                }
                Io::Write(at, data) => {
                    // Sectors are the medium's, not the write's.
                    let (mut from, end) = (*at as usize, *at as usize + data.len());
                    while from < end {
                        let to = end.min((from / SECTOR + 1) * SECTOR);
                        if stays(rng) && to <= image.len() {
                            let start = *at as usize;
                            image[from..to].copy_from_slice(&data[from - start..to - start]);
                        }
                        from = to;
                    }
                }
                Io::Sync | Io::FailedSync | Io::Acknowledged(_) => {}
            }
        }
        image
    }

    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }
}

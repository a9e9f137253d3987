//! The ways to keep a watermark that were weighed in decision 1: beside the database, and in the same file.

use std::{
    fs::{File, OpenOptions},
    io,
    ops::Bound,
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, mpsc},
    thread,
};

use anyhow::Result;
use redb::{BackendError, Database, StorageBackend};

use super::{
    Case,
    bare::Bare,
    counting::{Counting, Counts, Io},
    turns::Variant,
};

const FRONT: u64 = 16 << 10;

fn watermark(next: u64) -> [u8; 76] {
    let mut page = [0; 76];
    page[..8].copy_from_slice(&next.to_le_bytes());
    let sum = crc32c::crc32c(&page[..72]);
    page[72..].copy_from_slice(&sum.to_le_bytes());
    page
}

/// One of two slots, by turns.
fn slot(bare: &Bare) -> u64 {
    bare.next / bare.case.entries as u64 % 2 * 4096
}

/// One phase, and a watermark in a small file: written before the acknowledgement, synced with the next commit.
pub(super) struct Beside {
    bare: Bare,
    mark: File,
    marked: Counts,
    beside: Option<(mpsc::Sender<()>, mpsc::Receiver<io::Result<()>>)>,
}

impl Beside {
    /// Synced before the next commit, or by another thread beside it.
    pub(super) fn new(path: &Path, case: Case, cache: usize, beside: bool) -> Result<Self> {
        let bare = Bare::new(path, case, cache, |_| {})?;
        let path = path.with_extension("mark");
        let mark = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        mark.write_all_at(&[0; 8192], 0)?;
        mark.sync_all()?;
        let beside = beside.then(|| -> io::Result<_> {
            let ((ask, asked), (answer, answered)) = (mpsc::channel(), mpsc::channel());
            let file = mark.try_clone()?;
            thread::spawn(move || while asked.recv().is_ok() && answer.send(file.sync_data()).is_ok() {});
            Ok((ask, answered))
        });
        Ok(Self { bare, mark, marked: Counts::default(), beside: beside.transpose()? })
    }
}

impl Variant for Beside {
    fn prepare(&mut self) -> Result<()> {
        self.bare.prepare()
    }

    fn commit(&mut self) -> Result<()> {
        match &self.beside {
            None => {
                self.mark.sync_data()?;
                self.bare.commit()?;
            }
            Some((ask, answered)) => {
                ask.send(())?;
                self.bare.commit()?;
                answered.recv()??;
            }
        }
        let mark = watermark(self.bare.next);
        self.mark.write_all_at(&mark, slot(&self.bare))?;
        self.marked.synced();
        self.marked.wrote(mark.len());
        Ok(())
    }

    fn io(&self) -> Io {
        let mut io = self.bare.io();
        io += self.marked.so_far();
        io
    }
}

/// One phase, and a watermark in front of the database in the same file, so that one sync takes both.
pub(super) struct Within {
    bare: Bare,
    file: Arc<Counting>,
}

impl Within {
    pub(super) fn new(path: &Path, case: Case, cache: usize) -> Result<Self> {
        let counts = Counts::default();
        let file = Arc::new(Counting::create(path, counts.clone())?);
        file.set_len(FRONT)?;
        let db = Database::builder().set_cache_size(cache).create_with_backend(Shifted(Arc::clone(&file)))?;
        Ok(Self { bare: Bare::on(db, case, counts, |_| {}), file })
    }
}

impl Variant for Within {
    fn prepare(&mut self) -> Result<()> {
        self.bare.prepare()
    }

    fn commit(&mut self) -> Result<()> {
        self.bare.commit()?;
        self.file.write(4096 + slot(&self.bare), &watermark(self.bare.next))?;
        Ok(())
    }

    fn io(&self) -> Io {
        self.bare.io()
    }
}

#[derive(Debug)]
struct Shifted(Arc<Counting>);

impl StorageBackend for Shifted {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len()? - FRONT)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset + FRONT, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len + FRONT)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset + FRONT, data)
    }
    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }
}

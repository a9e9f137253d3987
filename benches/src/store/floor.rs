//! The floor: the same bytes at the end of a plain file, and an `fdatasync`. What no store is below.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
};

use anyhow::Result;

use super::{
    Case,
    counting::{Counts, Io},
    payload,
    turns::Variant,
};

/// How much is laid out beforehand; when it is full it is written again from its beginning.
const ROOM: u64 = 64 << 20;

pub(super) struct Floor {
    file: File,
    case: Case,
    at: u64,
    grows: bool,
    counts: Counts,
    bytes: Vec<u8>,
}

impl Floor {
    /// A file that grows with each append, or one whose blocks were written before.
    pub(super) fn new(path: &Path, case: Case, grows: bool) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        if !grows {
            let zeros = vec![0; 1 << 20];
            for at in (0..ROOM).step_by(zeros.len()) {
                file.write_all_at(&zeros, at)?;
            }
        }
        file.sync_all()?;
        Ok(Self { file, case, at: 0, grows, counts: Counts::default(), bytes: Vec::new() })
    }
}

impl Variant for Floor {
    fn prepare(&mut self) -> Result<()> {
        self.bytes.clear();
        for n in 0..(self.case.groups * self.case.entries) as u64 {
            self.bytes.extend_from_slice(&payload(self.at + n, self.case.payload));
        }
        if !self.grows && self.at + self.bytes.len() as u64 > ROOM {
            self.at = 0;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        self.file.write_all_at(&self.bytes, self.at)?;
        self.file.sync_data()?;
        self.at += self.bytes.len() as u64;
        self.counts.wrote(self.bytes.len());
        self.counts.synced();
        Ok(())
    }

    fn io(&self) -> Io {
        self.counts.so_far()
    }
}

//! Reading an archive, in any order, with every block checked before any of it is given.

use std::{fs::File, path::Path};

use quorate_core::{GroupId, LogId, SnapshotInfo, SnapshotReader};
use redb::{StorageBackend, backends::FileBackend};

use super::format::{
    ArchiveHeader, BLOCK, BLOCK_HEADER, END_LEN, Fault, HEADER_START, Prefix, block_at, decode_block,
    decode_end, file_len,
};
use crate::{
    Error,
    error::{from_redb, io_damage},
};

/// Reads a backup, or a snapshot of a store that is not running.
#[derive(Debug)]
pub struct ArchiveReader {
    body: Body,
    info: SnapshotInfo,
}

impl ArchiveReader {
    /// Opens the file, which must be whole: its header and its end are looked at.
    ///
    /// # Errors
    /// If it can't be read, is no archive, is not whole, or is of a version that this release does not know.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let file = File::open(path).map_err(|source| io_damage(&name, "opening", source))?;
        let backend =
            FileBackend::new(file).map_err(|error| from_redb(&name, "opening a snapshot", error))?;
        Self::on(Box::new(backend), name)
    }

    pub(crate) fn on(backend: Box<dyn StorageBackend>, name: String) -> Result<Self, Error> {
        let body = Body::open(backend, name)?;
        let info = body.whole()?;
        Ok(Self { body, info })
    }

    /// What it holds, and where it is from.
    #[must_use]
    pub const fn header(&self) -> &ArchiveHeader {
        &self.body.prefix.header
    }

    pub(crate) const fn announced(&self) -> Option<(u64, u32)> {
        self.body.prefix.announced
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// If any of it is damaged, or can't be read.
    pub fn verify(&mut self) -> Result<SnapshotInfo, Error> {
        let mut checksum = 0;
        let mut at = 0;
        while at < self.info.bytes {
            let block = self.body.block(at / BLOCK as u64, self.info.bytes)?;
            checksum = crc32c::crc32c_append(checksum, block);
            at = at.saturating_add(block.len() as u64);
        }
        if checksum != self.info.checksum {
            return Err(self.other_bytes());
        }
        Ok(self.info.clone())
    }

    /// Each block was right, and yet they are not what its end says.
    pub(crate) fn other_bytes(&self) -> Error {
        Fault::Damaged("the checksum of all its bytes does not match").of(&self.body.name)
    }
}

impl SnapshotReader for ArchiveReader {
    type Error = Error;

    fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<usize, Error> {
        let mut done = 0;
        while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(done as u64);
            if at >= self.info.bytes {
                break;
            }
            let block = self.body.block(at / BLOCK as u64, self.info.bytes)?;
            let within = usize::try_from(at % BLOCK as u64).unwrap_or(usize::MAX);
            let part = block.get(within..).unwrap_or_default();
            let len = part.len().min(rest.len());
            if let (Some(to), Some(from)) = (rest.get_mut(..len), part.get(..len)) {
                to.copy_from_slice(from);
            }
            done = done.saturating_add(len);
        }
        Ok(done)
    }
}

/// An archive that may not be whole yet.
#[derive(Debug)]
pub(crate) struct Body {
    backend: Box<dyn StorageBackend>,
    /// What it is called in errors.
    name: String,
    pub(crate) prefix: Prefix,
    pub(crate) header_len: usize,
    pub(crate) header_sum: u32,
    /// The block that was read last, with what is in front of it.
    block: Vec<u8>,
    place: Option<u64>,
}

impl Body {
    /// Reads the header.
    pub(crate) fn open(backend: Box<dyn StorageBackend>, name: String) -> Result<Self, Error> {
        let fault = |fault: Fault| fault.of(&name);
        let len = backend.len().map_err(|source| io_damage(&name, "reading", source))?;
        let read = |wanted: usize| {
            if len < wanted as u64 {
                return Err(fault(Fault::Damaged("its header is cut short")));
            }
            let mut bytes = vec![0; wanted];
            backend.read(0, &mut bytes).map_err(|source| io_damage(&name, "reading", source))?;
            Ok(bytes)
        };
        let header_len = Prefix::len(&read(HEADER_START)?).map_err(fault)?;
        let (prefix, header_sum) = Prefix::decode(&read(header_len)?).map_err(fault)?;
        Ok(Self { backend, name, prefix, header_len, header_sum, block: Vec::new(), place: None })
    }

    /// What it holds, if it has its end and the length that goes with it.
    fn whole(&self) -> Result<SnapshotInfo, Error> {
        let io = |source| io_damage(&self.name, "reading", source);
        let damaged = |what| Err(Fault::Damaged(what).of(&self.name));
        let len = self.backend.len().map_err(io)?;
        let Some(at) = len.checked_sub(END_LEN as u64).filter(|at| *at >= self.header_len as u64) else {
            return damaged("it is cut short");
        };
        let mut end = [0; END_LEN];
        self.backend.read(at, &mut end).map_err(io)?;
        let Some((bytes, checksum)) = decode_end(self.header_sum, &end) else {
            return damaged("it has no end, or a damaged one");
        };
        if file_len(self.header_len, bytes) != len {
            return damaged("its length is not what its end says");
        }
        if self.prefix.announced.is_some_and(|announced| announced != (bytes, checksum)) {
            return damaged("it is not what was announced");
        }
        Ok(SnapshotInfo { snapshot: self.prefix.header.snapshot.clone(), bytes, checksum })
    }

    /// A block of an archive that holds so many bytes.
    fn block(&mut self, place: u64, bytes: u64) -> Result<&[u8], Error> {
        let before = place.saturating_mul(BLOCK as u64);
        let len = usize::try_from(bytes.saturating_sub(before)).unwrap_or(usize::MAX).min(BLOCK);
        if !self.load(place, len)? {
            let what = "the checksum of a block does not match";
            return Err(Error::BadSnapshot { file: self.name.clone(), offset: Some(before), what });
        }
        Ok(self.block.get(BLOCK_HEADER..).unwrap_or_default())
    }

    /// Reads a block of this length; is it right?
    fn load(&mut self, place: u64, len: usize) -> Result<bool, Error> {
        if self.place == Some(place) && self.block.len() == BLOCK_HEADER + len {
            return Ok(true);
        }
        self.place = None;
        self.block.resize(BLOCK_HEADER + len, 0);
        self.backend
            .read(block_at(self.header_len, place), &mut self.block)
            .map_err(|source| io_damage(&self.name, "reading", source))?;
        let right = decode_block(self.header_sum, place, &self.block).is_some();
        self.place = right.then_some(place);
        Ok(right)
    }

    /// How many full blocks at its beginning are right, and the checksum of what is in them.
    pub(crate) fn full_blocks(&mut self) -> Result<(u64, u32), Error> {
        let len = self.backend.len().map_err(|source| io_damage(&self.name, "reading", source))?;
        let (mut blocks, mut checksum) = (0_u64, 0);
        while block_at(self.header_len, blocks.saturating_add(1)) <= len && self.load(blocks, BLOCK)? {
            checksum = crc32c::crc32c_append(checksum, self.block.get(BLOCK_HEADER..).unwrap_or_default());
            blocks = blocks.saturating_add(1);
        }
        Ok((blocks, checksum))
    }

    /// The file.
    pub(crate) fn into_backend(self) -> Box<dyn StorageBackend> {
        self.backend
    }
}

/// Is it the archive that its name says?
pub(crate) fn check_place(archive: &ArchiveReader, group: GroupId, last: LogId) -> Result<(), Error> {
    let header = archive.header();
    if header.group == group && header.snapshot.last == last {
        return Ok(());
    }
    Err(Fault::Damaged("its name is of another group or entry than what it holds").of(&archive.body.name))
}

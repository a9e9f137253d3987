//! The whole state as bytes, and back.
//!
//! # The format
//!
//! Numbers are little-endian; a `string` is its length, `u32`, and that many bytes.
//!
//! ```text
//! magic       8 bytes   "QRTCOORD"
//! version     u32       1
//! revision    i64       the newest one, from 1
//! compacted   i64       that of the last compaction; -1: there was none
//! keys        u64       how many there are
//! recoveries  u32       how many follow, oldest first
//!   recovery  string    a `ForcedRecovery` of `proto/quorate/coord/v1/command.proto`, as this release encodes it
//! as many as there are keys, in ascending order, none twice:
//!   key       string
//!   versions  u32       how many follow, from 1, oldest first
//!     modified  i64     the revision that made it, from 2 to the newest, not below the one before it
//!     is        u8      0: deleted; 1: stored, and then
//!       created i64     from 2 to `modified`
//!       version i64     from 1
//!       lease   i64
//!       value   string
//! digest      u64       `Machine::digest` of all that
//! ```
//!
//! Nothing may follow. The bytes are canonical: equal states have equal bytes, however they came about, so replicas can
//! be compared by them. The digest makes a changed byte show wherever it is, for one byte always changes an FNV-1a hash;
//! against more than that it is a weak one, and the files that snapshots are kept in have stronger checksums around this.

use bytes::Bytes;
use prost::Message as _;
use quorate_core::{Frozen, Sink, Source, StateError};

use super::{
    Machine,
    hash::Hasher,
    store::{Store, Stored, Version},
};
use crate::pb::command::ForcedRecovery;

const MAGIC: &[u8; 8] = b"QRTCOORD";

/// The format of snapshots that this version writes, and the only one that it reads.
pub const SNAPSHOT_FORMAT: u32 = 1;

/// Chunks that are handed on are about this big: at least, but for the last one, and at most that and one value more
/// than half of it.
const CHUNK: usize = 64 << 10;

/// Why bytes are not taken for a state. The machine is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// They begin otherwise.
    #[error("this is no snapshot of a key-value store: it does not begin with \"QRTCOORD\"")]
    Magic,
    /// Of another release.
    #[error("the snapshot is of format {0}; this version knows {SNAPSHOT_FORMAT}")]
    Version(u32),
    /// They end too early.
    #[error("the snapshot ends within it, after {at} bytes")]
    Truncated {
        /// After so many.
        at: u64,
    },
    /// There is more than the state.
    #[error("the snapshot is complete after {at} bytes, and more follows")]
    Trailing {
        /// After so many.
        at: u64,
    },
    /// They say what no store can come to.
    #[error("the snapshot is not consistent: {what}, at byte {at}")]
    Inconsistent {
        /// What they say.
        what: &'static str,
        /// Before this byte.
        at: u64,
    },
    /// They say something else than was written.
    #[error("the snapshot is damaged: its digest is {written:016x}, and its content's {found:016x}")]
    Digest {
        /// As is written.
        written: u64,
        /// As it should be.
        found: u64,
    },
    /// They can't be read.
    #[error("the snapshot can't be read: {0}")]
    Read(#[source] StateError),
}

impl Frozen for Machine {
    /// Writes it out, as the module's documentation says.
    fn write(&self, out: &mut dyn Sink) -> Result<(), StateError> {
        let mut out = Writer { out, chunk: Vec::with_capacity(2 * CHUNK) };
        out.bytes(MAGIC)?;
        out.number(SNAPSHOT_FORMAT.to_le_bytes())?;
        out.number(self.revision().to_le_bytes())?;
        out.number(self.compacted().to_le_bytes())?;
        out.number((self.store.len() as u64).to_le_bytes())?;
        let recoveries: Vec<Vec<u8>> = self.recoveries.iter().map(ForcedRecovery::encode_to_vec).collect();
        out.count(recoveries.len())?;
        recoveries.iter().try_for_each(|recovery| out.string(recovery))?;
        let mut hasher = self.begin_digest();
        for (key, versions) in self.store.iter() {
            out.string(key)?;
            out.count(versions.len())?;
            for version in versions {
                version.hash(key, &mut hasher);
                out.number(version.modified.to_le_bytes())?;
                let Some(stored) = &version.stored else {
                    out.number([0])?;
                    continue;
                };
                out.number([1])?;
                for number in [stored.created, stored.version, stored.lease] {
                    out.number(number.to_le_bytes())?;
                }
                out.string(&stored.value)?;
            }
        }
        recoveries.iter().for_each(|recovery| hasher.bytes(recovery));
        out.number(hasher.finish().to_le_bytes())?;
        out.end()
    }
}

/// What a snapshot says of its state at its beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotHead {
    /// The newest revision.
    pub revision: i64,
    /// The revision of the last compaction; -1 if there was none.
    pub compacted: i64,
    /// How many keys there are, those included that were deleted and of which the history is left.
    pub keys: u64,
}

impl SnapshotHead {
    /// How many bytes it has: [`SnapshotHead::read`] reads no more.
    pub const BYTES: usize = 36;

    /// Reads the beginning of a snapshot.
    ///
    /// # Errors
    /// As [`Machine::read_snapshot`].
    pub fn read(source: &mut dyn Source) -> Result<Self, RestoreError> {
        Self::take(&mut Reader::new(source, Self::BYTES))
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, RestoreError> {
        let mut magic = [0; MAGIC.len()];
        // A short one is no snapshot of ours either.
        if input.fill(&mut magic).map_or_else(cut_short, |()| Ok(false))? || magic != *MAGIC {
            return Err(RestoreError::Magic);
        }
        let version = u32::from_le_bytes(input.array()?);
        if version != SNAPSHOT_FORMAT {
            return Err(RestoreError::Version(version));
        }
        let (revision, compacted) = (input.signed()?, input.signed()?);
        input.check(revision >= 1, "the revision is below 1")?;
        input.check(compacted <= revision, "the last compaction is above the revision")?;
        let keys = u64::from_le_bytes(input.array()?);
        Ok(Self { revision, compacted, keys })
    }

    /// Reads the beginning of a snapshot, and the forced recoveries that come next, oldest first.
    ///
    /// # Errors
    /// As [`Machine::read_snapshot`].
    pub fn read_with_recoveries(
        source: &mut dyn Source,
    ) -> Result<(Self, Vec<ForcedRecovery>), RestoreError> {
        let mut input = Reader::new(source, CHUNK);
        let head = Self::take(&mut input)?;
        let recoveries = input.recoveries()?.into_iter().map(|(_, recovery)| recovery).collect();
        Ok((head, recoveries))
    }
}

impl Machine {
    /// Reads a state that was written by [`Frozen::write`]. No more memory is taken than what is really there to be read
    /// asks for, whatever the lengths in it claim.
    ///
    /// # Errors
    /// If it is no such thing, of another format, damaged, or can't be read.
    pub fn read_snapshot(source: &mut dyn Source) -> Result<Self, RestoreError> {
        let mut input = Reader::new(source, CHUNK);
        let SnapshotHead { revision, compacted, keys } = SnapshotHead::take(&mut input)?;
        let recoveries = input.recoveries()?;
        let mut store = Store::at_revision(revision, compacted);
        let mut hasher = Self { store: store.clone(), recoveries: Vec::new() }.begin_digest();
        let mut before: Option<Bytes> = None;
        for _ in 0..keys {
            let key = input.string()?;
            input.check(before.as_ref().is_none_or(|before| *before < key), "a key is out of order")?;
            let versions = input.versions(&key, revision, &mut hasher)?;
            store.append(key.clone(), versions);
            before = Some(key);
        }
        recoveries.iter().for_each(|(bytes, _)| hasher.bytes(bytes));
        let (written, found) = (u64::from_le_bytes(input.array()?), hasher.finish());
        if written != found {
            return Err(RestoreError::Digest { written, found });
        }
        input.finish()?;
        Ok(Self { store, recoveries: recoveries.into_iter().map(|(_, recovery)| recovery).collect() })
    }
}

fn cut_short(error: RestoreError) -> Result<bool, RestoreError> {
    match error {
        RestoreError::Truncated { .. } => Ok(true),
        other => Err(other),
    }
}

/// Gathers what is written into chunks.
struct Writer<'a> {
    out: &'a mut dyn Sink,
    chunk: Vec<u8>,
}

impl Writer<'_> {
    fn bytes(&mut self, mut bytes: &[u8]) -> Result<(), StateError> {
        // What is large is handed on as it is, in pieces, and not copied.
        while self.chunk.len() + bytes.len() >= 2 * CHUNK {
            let (piece, rest) = bytes.split_at(CHUNK.min(bytes.len()));
            self.flush()?;
            self.out.put(piece)?;
            bytes = rest;
        }
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn number<const N: usize>(&mut self, number: [u8; N]) -> Result<(), StateError> {
        self.bytes(&number)
    }

    fn count(&mut self, count: usize) -> Result<(), StateError> {
        let count = u32::try_from(count).map_err(|_| "more than 4 GiB in one piece can't be written")?;
        self.number(count.to_le_bytes())
    }

    fn string(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        self.count(bytes.len())?;
        self.bytes(bytes)
    }

    fn flush(&mut self) -> Result<(), StateError> {
        if !self.chunk.is_empty() {
            self.out.put(&self.chunk)?;
            self.chunk.clear();
        }
        Ok(())
    }

    fn end(mut self) -> Result<(), StateError> {
        self.flush()
    }
}

/// Takes apart what is read in chunks.
struct Reader<'a> {
    source: &'a mut dyn Source,
    chunk: Vec<u8>,
    /// What is left of the chunk.
    begin: usize,
    end: usize,
    /// How many bytes were taken.
    at: u64,
}

impl<'a> Reader<'a> {
    /// Reads `source` in chunks of so many bytes.
    fn new(source: &'a mut dyn Source, chunk: usize) -> Self {
        Self { source, chunk: vec![0; chunk], begin: 0, end: 0, at: 0 }
    }

    /// Forced recoveries, each with its bytes.
    fn recoveries(&mut self) -> Result<Vec<(Bytes, ForcedRecovery)>, RestoreError> {
        let mut recoveries = Vec::new();
        for _ in 0..self.count()? {
            let bytes = self.string()?;
            let recovery = ForcedRecovery::decode(bytes.clone()).ok();
            let recovery = recovery.filter(|recovery| recovery.encode_to_vec() == bytes);
            let at = self.at;
            let recovery = recovery.ok_or(RestoreError::Inconsistent { what: "a recovery is none", at })?;
            recoveries.push((bytes, recovery));
        }
        Ok(recoveries)
    }

    /// Some of what comes next, up to `max` bytes; nothing only at the end.
    fn some(&mut self, max: usize) -> Result<&[u8], RestoreError> {
        if self.begin == self.end && max > 0 {
            self.begin = 0;
            let read = self.source.read(&mut self.chunk).map_err(RestoreError::Read)?;
            self.end = read.min(self.chunk.len());
        }
        let from = self.begin;
        self.begin = self.end.min(from.saturating_add(max));
        let some = self.chunk.get(from..self.begin).unwrap_or_default();
        self.at = self.at.saturating_add(some.len() as u64);
        Ok(some)
    }

    fn fill(&mut self, mut out: &mut [u8]) -> Result<(), RestoreError> {
        while !out.is_empty() {
            let some = self.some(out.len())?;
            if some.is_empty() {
                return Err(RestoreError::Truncated { at: self.at });
            }
            let (head, rest) = out.split_at_mut(some.len());
            head.copy_from_slice(some);
            out = rest;
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RestoreError> {
        let mut out = [0; N];
        self.fill(&mut out)?;
        Ok(out)
    }

    fn signed(&mut self) -> Result<i64, RestoreError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    fn count(&mut self) -> Result<u32, RestoreError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn string(&mut self) -> Result<Bytes, RestoreError> {
        let len = self.count()? as usize;
        // It may claim anything: what is not there takes no memory, beyond a chunk.
        let mut out = Vec::with_capacity(len.min(CHUNK));
        while out.len() < len {
            let some = self.some(len - out.len())?;
            if some.is_empty() {
                return Err(RestoreError::Truncated { at: self.at });
            }
            out.extend_from_slice(some);
        }
        Ok(out.into_boxed_slice().into())
    }

    fn versions(
        &mut self,
        key: &Bytes,
        revision: i64,
        hasher: &mut Hasher,
    ) -> Result<Vec<Version>, RestoreError> {
        let count = self.count()? as usize;
        self.check(count > 0, "a key has no versions")?;
        // As above.
        let mut versions = Vec::with_capacity(count.min(64));
        let mut oldest = 2;
        for _ in 0..count {
            let modified = self.signed()?;
            let within = (oldest..=revision).contains(&modified);
            self.check(within, "a version is of a revision that is not between its neighbours'")?;
            oldest = modified;
            let [is] = self.array()?;
            self.check(is <= 1, "a version is neither stored nor deleted")?;
            let stored = if is == 1 {
                let (created, version, lease) = (self.signed()?, self.signed()?, self.signed()?);
                self.check((2..=modified).contains(&created), "a key was created after it was written")?;
                self.check(version >= 1, "a version's number is below 1")?;
                Some(Stored { created, version, value: self.string()?, lease })
            } else {
                None
            };
            let version = Version { modified, stored };
            version.hash(key, hasher);
            versions.push(version);
        }
        versions.shrink_to_fit();
        Ok(versions)
    }

    const fn check(&self, holds: bool, what: &'static str) -> Result<(), RestoreError> {
        if holds { Ok(()) } else { Err(RestoreError::Inconsistent { what, at: self.at }) }
    }

    /// Nothing may follow.
    fn finish(mut self) -> Result<(), RestoreError> {
        let at = self.at;
        if self.some(1)?.is_empty() { Ok(()) } else { Err(RestoreError::Trailing { at }) }
    }
}

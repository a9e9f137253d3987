//! Entries, kept and sent in runs: one immutable, shared block per batch.
//!
//! A block is the encoded form of a batch, made once: log, write, every follower's send and apply all point into
//! it, and it crosses the wire and reaches the disk as it is. Each entry in it is a header of five bytes (kind,
//! payload length little-endian) and its payload; positions are relative, so that a batch can be encoded before its
//! index is known.

use alloc::{sync::Arc, vec::Vec};
use bytes::Bytes;
use core::fmt;

#[cfg(feature = "serde")]
use crate::recording::Block;
use crate::{Few, Index, LogId, Membership, Term};

/// Bytes in front of each payload in a block: kind and length.
pub const ENTRY_HEADER: usize = 5;

/// What an entry is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum EntryKind {
    /// What a new leader appends to commit what came before (paper §8). No payload.
    Noop,
    /// A command for the state machine.
    Command,
    /// A [`Membership`], in force from the moment it is in the log (paper §6).
    Membership,
}

impl EntryKind {
    const fn code(self) -> u8 {
        match self {
            Self::Noop => 0,
            Self::Command => 1,
            Self::Membership => 2,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Noop),
            1 => Some(Self::Command),
            2 => Some(Self::Membership),
            _ => None,
        }
    }
}

/// One entry, to keep: it shares its run's block.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// Its name.
    pub id: LogId,
    /// What it is for.
    pub kind: EntryKind,
    /// The command, or the encoded membership; points into the run's block.
    pub payload: Bytes,
}

/// One entry, looked at where it lies, without a reference to its block being counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EntryRef<'a> {
    /// Its name.
    pub id: LogId,
    /// What it is for.
    pub kind: EntryKind,
    /// The command, or the encoded membership.
    pub payload: &'a [u8],
}

/// Commands to propose together, encoded already. It becomes one run in the log.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Block", into = "Block"))]
pub struct Batch {
    count: u32,
    block: Bytes,
}

impl Batch {
    /// A batch of one command.
    #[must_use]
    pub fn one(command: &[u8]) -> Self {
        let mut block = Vec::with_capacity(ENTRY_HEADER.saturating_add(command.len()));
        put_entry(&mut block, EntryKind::Command, command);
        Self { count: 1, block: block.into() }
    }

    /// How many commands.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count as u64
    }

    /// Bytes of the encoded block: what the bounds in [`Config`](crate::Config) count.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.block.len()
    }
}

/// Its block.
impl From<Batch> for Bytes {
    fn from(batch: Batch) -> Self {
        batch.block
    }
}

/// A block of commands, and of nothing else; it may be empty.
impl TryFrom<Bytes> for Batch {
    type Error = BlockError;

    fn try_from(block: Bytes) -> Result<Self, BlockError> {
        if block.is_empty() {
            return Ok(Self { count: 0, block });
        }
        let run = Run::parse(Term(1), Index(1), block)?;
        if let Some(other) = run.iter().find(|entry| entry.kind != EntryKind::Command) {
            return Err(BlockError::NoCommand { kind: other.kind });
        }
        Ok(Self { count: u32::try_from(run.count()).unwrap_or(u32::MAX), block: run.block().clone() })
    }
}

/// The recorded form of a batch is its block, looked through again when it is read back.
#[cfg(feature = "serde")]
impl From<Batch> for Block {
    fn from(batch: Batch) -> Self {
        Self(batch.block)
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Block> for Batch {
    type Error = BlockError;

    fn try_from(Block(block): Block) -> Result<Self, BlockError> {
        Self::try_from(block)
    }
}

impl<P: AsRef<[u8]>> FromIterator<P> for Batch {
    fn from_iter<I: IntoIterator<Item = P>>(commands: I) -> Self {
        let commands = commands.into_iter();
        let mut block = Vec::new();
        let mut count = 0_u32;
        for command in commands {
            put_entry(&mut block, EntryKind::Command, command.as_ref());
            count = count.saturating_add(1);
        }
        Self { count, block: block.into() }
    }
}

/// Commands, copied once into one block of exactly their size.
impl<P: AsRef<[u8]>> From<&[P]> for Batch {
    fn from(commands: &[P]) -> Self {
        let bytes: usize =
            commands.iter().map(|command| ENTRY_HEADER.saturating_add(command.as_ref().len())).sum();
        let mut block = Vec::with_capacity(bytes);
        for command in commands {
            put_entry(&mut block, EntryKind::Command, command.as_ref());
        }
        Self { count: u32::try_from(commands.len()).unwrap_or(u32::MAX), block: block.into() }
    }
}

/// Consecutive entries of one term, in one shared block. Cheap to clone and to slice: nothing is copied.
// Every entry passes through some twenty hands (log, write, a message per follower, apply, on each node): a run is one
// pointer, so that handing it on moves eight bytes and counts one reference.
#[derive(Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "RunParts", into = "RunParts"))]
pub struct Run(Arc<Shared>);

#[derive(PartialEq, Eq, Hash)]
struct Shared {
    term: Term,
    first: Index,
    last: Index,
    has_membership: bool,
    block: Bytes,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { term, first, has_membership, block, .. } = &*self.0;
        f.debug_struct("Run")
            .field("term", term)
            .field("first", first)
            .field("count", &self.count())
            .field("has_membership", has_membership)
            .field("block", block)
            .finish()
    }
}

/// A run's fields as they are recorded: looked through again when they are read back.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct RunParts {
    term: Term,
    first: Index,
    block: Block,
}

#[cfg(feature = "serde")]
impl From<Run> for RunParts {
    fn from(run: Run) -> Self {
        Self { term: run.term(), first: run.first(), block: Block(run.block().clone()) }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<RunParts> for Run {
    type Error = BlockError;

    fn try_from(parts: RunParts) -> Result<Self, BlockError> {
        Self::parse(parts.term, parts.first, parts.block.0)
    }
}

/// Why bytes are not a block of entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BlockError {
    /// No entry at all.
    #[error("a block of entries is empty")]
    Empty,
    /// An entry's header or payload goes past the end.
    #[error("a block of entries ends inside the entry at byte {at}")]
    Truncated {
        /// Where that entry begins.
        at: usize,
    },
    /// An entry of a kind that this version does not know.
    #[error(
        "unknown entry kind {kind} at byte {at}; this version knows 0 (noop), 1 (command), 2 (membership)"
    )]
    Kind {
        /// The kind found.
        kind: u8,
        /// Where.
        at: usize,
    },
    /// An entry in a batch of proposals that is no command.
    #[error("a batch of proposals holds a {kind:?} entry")]
    NoCommand {
        /// What it is.
        kind: EntryKind,
    },
    /// A membership entry whose payload is none.
    #[error("the membership entry at byte {at} is not valid")]
    Membership {
        /// Where that entry begins.
        at: usize,
    },
    /// A term or index out of range.
    #[error("a run of entries at index {first} in term {term} is out of range")]
    Range {
        /// The run's term.
        term: Term,
        /// The run's first index.
        first: Index,
    },
}

impl Run {
    /// A proposed batch at its place in the log; `None` for an empty batch.
    #[must_use]
    pub(crate) fn of(term: Term, first: Index, batch: Batch) -> Option<Self> {
        let Batch { count, block } = batch;
        (count > 0).then(|| Self::new(term, first, count, false, block))
    }

    /// Of one entry at least.
    fn new(term: Term, first: Index, count: u32, has_membership: bool, block: Bytes) -> Self {
        let last = first.plus(u64::from(count).saturating_sub(1));
        Self(Arc::new(Shared { term, first, last, has_membership, block }))
    }

    /// The entry with which a leader's term begins (paper §8).
    #[must_use]
    pub fn noop(term: Term, index: Index) -> Self {
        Self::single(term, index, EntryKind::Noop, &[])
    }

    /// A membership entry.
    #[must_use]
    pub fn membership(term: Term, index: Index, membership: &Membership) -> Self {
        Self::single(term, index, EntryKind::Membership, &membership.encode())
    }

    /// Commands at `first` and on, for tests and tools; `None` if there are none.
    #[must_use]
    pub fn commands<P: AsRef<[u8]>>(term: Term, first: Index, commands: &[P]) -> Option<Self> {
        Self::of(term, first, Batch::from(commands))
    }

    /// A block from the network or the disk, looked through once: after this nothing about it can be wrong.
    ///
    /// # Errors
    /// If the bytes are not a whole number of entries of known kinds, or term or index are out of range.
    pub fn parse(term: Term, first: Index, block: Bytes) -> Result<Self, BlockError> {
        let (mut at, mut count, mut has_membership) = (0_usize, 0_u32, false);
        while at < block.len() {
            let (code, len) = header(&block, at).ok_or(BlockError::Truncated { at })?;
            let kind = EntryKind::from_code(code).ok_or(BlockError::Kind { kind: code, at })?;
            let start = at.saturating_add(ENTRY_HEADER);
            let payload = block.get(start..start.saturating_add(len)).ok_or(BlockError::Truncated { at })?;
            if kind == EntryKind::Membership {
                Membership::decode(payload).map_err(|_| BlockError::Membership { at })?;
                has_membership = true;
            }
            at = start.saturating_add(len);
            count = count.checked_add(1).ok_or(BlockError::Range { term, first })?;
        }
        if count == 0 {
            return Err(BlockError::Empty);
        }
        let run = Self::new(term, first, count, has_membership, block);
        if term.0 == 0 || first.0 == 0 || term >= Term::LIMIT || run.last() >= Index::LIMIT {
            return Err(BlockError::Range { term, first });
        }
        Ok(run)
    }

    fn single(term: Term, index: Index, kind: EntryKind, payload: &[u8]) -> Self {
        let mut block = Vec::with_capacity(ENTRY_HEADER.saturating_add(payload.len()));
        put_entry(&mut block, kind, payload);
        let has_membership = kind == EntryKind::Membership;
        Self::new(term, index, 1, has_membership, block.into())
    }

    /// The term of all its entries.
    #[must_use]
    pub fn term(&self) -> Term {
        self.0.term
    }

    /// Its first index.
    #[must_use]
    pub fn first(&self) -> Index {
        self.0.first
    }

    /// Its last index.
    #[must_use]
    pub fn last(&self) -> Index {
        self.0.last
    }

    /// The name of its last entry.
    #[must_use]
    pub fn last_id(&self) -> LogId {
        LogId { term: self.0.term, index: self.last() }
    }

    /// How many entries; at least one.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.last.since(self.0.first).saturating_add(1)
    }

    /// Bytes of its block: what the bounds in [`Config`](crate::Config) count.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.block.len()
    }

    /// Is any of its entries a membership?
    #[must_use]
    pub fn has_membership(&self) -> bool {
        self.0.has_membership
    }

    /// The encoded entries, as they go to wire and disk; [`Run::parse`] reads them back.
    #[must_use]
    pub fn block(&self) -> &Bytes {
        &self.0.block
    }

    /// Each entry, in order, to look at.
    #[must_use]
    pub fn iter(&self) -> EntryRefs<'_> {
        EntryRefs { rest: self.block(), term: self.term(), index: self.first() }
    }

    /// Each entry, in order, to keep.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let entry =
            |EntryRef { id, kind, payload }| Entry { id, kind, payload: self.block().slice_ref(payload) };
        self.iter().map(entry)
    }

    /// The part of it at `from` and after; `None` if nothing is.
    #[must_use]
    pub fn starting_at(&self, from: Index) -> Option<Self> {
        if from <= self.first() {
            return Some(self.clone());
        }
        self.split(from).1
    }

    /// The part of it before `end`; `None` if nothing is.
    #[must_use]
    pub fn ending_before(&self, end: Index) -> Option<Self> {
        if end > self.last() {
            return Some(self.clone());
        }
        self.split(end).0
    }

    /// As many of its entries as fit into `bytes`, but at least one.
    #[must_use]
    pub fn within(&self, bytes: usize) -> Self {
        if self.bytes() <= bytes {
            return self.clone();
        }
        let (mut at, mut count) = (0_usize, 0_u64);
        while let Some((_, len)) = header(self.block(), at) {
            let next = at.saturating_add(ENTRY_HEADER).saturating_add(len);
            if next > bytes && count > 0 {
                break;
            }
            at = next;
            count = count.saturating_add(1);
        }
        self.ending_before(self.first().plus(count)).unwrap_or_else(|| self.clone())
    }

    /// The memberships in it, with their indexes.
    pub fn memberships(&self) -> impl Iterator<Item = (Index, Membership)> + '_ {
        let entries = self.has_membership().then(|| self.iter());
        entries.into_iter().flatten().filter(|entry| entry.kind == EntryKind::Membership).filter_map(
            |entry| {
                // Every way to make a run has looked at its memberships, so none is lost here.
                Some((entry.id.index, Membership::decode(entry.payload).ok()?))
            },
        )
    }

    fn split(&self, at: Index) -> (Option<Self>, Option<Self>) {
        let mut offset = 0_usize;
        let mut index = self.first();
        while index < at {
            let Some((_, len)) = header(self.block(), offset) else {
                break;
            };
            offset = offset.saturating_add(ENTRY_HEADER).saturating_add(len);
            index = index.next();
        }
        (
            self.part(self.first(), index, self.block().slice(..offset)),
            self.part(index, self.last().next(), self.block().slice(offset..)),
        )
    }

    fn part(&self, first: Index, end: Index, block: Bytes) -> Option<Self> {
        let count = u32::try_from(end.since(first)).unwrap_or(u32::MAX);
        let part = |has_membership, block| Self::new(self.term(), first, count, has_membership, block);
        let has_membership = self.has_membership()
            && part(true, block.clone()).iter().any(|entry| entry.kind == EntryKind::Membership);
        (count > 0).then(|| part(has_membership, block))
    }
}

impl<'a> IntoIterator for &'a Run {
    type Item = EntryRef<'a>;
    type IntoIter = EntryRefs<'a>;

    fn into_iter(self) -> EntryRefs<'a> {
        self.iter()
    }
}

/// The entries of a [`Run`].
#[derive(Clone, Debug)]
pub struct EntryRefs<'a> {
    rest: &'a [u8],
    term: Term,
    index: Index,
}

#[cfg(feature = "serde")]
impl<'a> EntryRefs<'a> {
    /// Those of a block that is in no log: what their indexes are says nothing.
    pub(crate) const fn of_block(block: &'a [u8]) -> Self {
        Self { rest: block, term: Term(1), index: Index(1) }
    }
}

impl<'a> Iterator for EntryRefs<'a> {
    type Item = EntryRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<EntryRef<'a>> {
        let ([code, len @ ..], rest) = self.rest.split_first_chunk::<ENTRY_HEADER>()?;
        let (payload, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        let id = LogId::new(self.term, self.index);
        self.rest = rest;
        self.index = self.index.next();
        Some(EntryRef { id, kind: EntryKind::from_code(*code)?, payload })
    }
}

impl Few<Run> {
    /// Bytes of all their blocks.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.only().map_or_else(|| self.iter().map(Run::bytes).sum(), Run::bytes)
    }
}

#[inline]
pub(crate) fn put_entry(block: &mut Vec<u8>, kind: EntryKind, payload: &[u8]) {
    put_header(block, kind, payload.len());
    block.extend_from_slice(payload);
}

#[inline]
pub(crate) fn put_header(block: &mut Vec<u8>, kind: EntryKind, len: usize) {
    let [a, b, c, d] = u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
    block.extend_from_slice(&[kind.code(), a, b, c, d]);
}

fn header(block: &[u8], at: usize) -> Option<(u8, usize)> {
    let [kind, len @ ..] = block.get(at..)?.first_chunk::<ENTRY_HEADER>()?;
    Some((*kind, u32::from_le_bytes(*len) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;
    use alloc::vec;

    fn run(n: usize) -> Run {
        let commands: Vec<Vec<u8>> = (0..n).map(|i| vec![i as u8; i]).collect();
        Run::commands(Term(3), Index(10), &commands).unwrap()
    }

    #[test]
    fn slices_share_the_block_and_agree_with_the_whole() {
        let whole = run(6);
        assert_eq!((whole.first(), whole.last()), (Index(10), Index(15)));
        let all: Vec<Entry> = whole.entries().collect();
        for cut in 10..=16 {
            let head = whole.ending_before(Index(cut));
            let tail = whole.starting_at(Index(cut));
            let parts: Vec<Entry> = head.iter().chain(&tail).flat_map(Run::entries).collect();
            assert_eq!(parts, all, "cut at {cut}");
            for part in head.iter().chain(&tail) {
                assert_eq!(Run::parse(part.term(), part.first(), part.block().clone()).as_ref(), Ok(part));
            }
        }
    }

    #[test]
    fn takes_what_fits_and_at_least_one() {
        let whole = run(6);
        assert_eq!(whole.within(0).count(), 1);
        assert_eq!(whole.within(5 + 6).count(), 2);
        assert_eq!(whole.within(5 + 6 + 6).count(), 2);
        assert_eq!(whole.within(usize::MAX), whole);
    }

    #[test]
    fn refuses_what_is_not_a_block() {
        let parse = |block: &[u8]| Run::parse(Term(1), Index(1), Bytes::copy_from_slice(block)).unwrap_err();
        assert_eq!(parse(&[]), BlockError::Empty);
        assert_eq!(parse(&[1, 0, 0]), BlockError::Truncated { at: 0 });
        assert_eq!(parse(&[1, 0, 0, 0, 0, 1, 255, 255, 255, 255]), BlockError::Truncated { at: 5 });
        assert_eq!(parse(&[9, 0, 0, 0, 0]), BlockError::Kind { kind: 9, at: 0 });
        assert_eq!(parse(&[2, 1, 0, 0, 0, 0xFF]), BlockError::Membership { at: 0 });
        let ok = Bytes::from_static(&[0, 0, 0, 0, 0]);
        assert!(Run::parse(Term(0), Index(1), ok.clone()).is_err());
        assert!(Run::parse(Term(1), Index(0), ok.clone()).is_err());
        assert!(Run::parse(Term(u64::MAX), Index(1), ok.clone()).is_err());
        assert!(Run::parse(Term(1), Index(u64::MAX), ok).is_err());
    }

    #[test]
    fn finds_memberships_in_the_middle() {
        let membership = Membership::of_voters([NodeId(1), NodeId(2)]);
        let mut block = Vec::new();
        put_entry(&mut block, EntryKind::Command, b"a");
        put_entry(&mut block, EntryKind::Membership, &membership.encode());
        put_entry(&mut block, EntryKind::Command, b"b");
        let run = Run::parse(Term(1), Index(5), block.into()).unwrap();
        assert_eq!(run.memberships().collect::<Vec<_>>(), vec![(Index(6), membership)]);
        assert!(!run.starting_at(Index(7)).unwrap().has_membership());
        assert!(run.ending_before(Index(7)).unwrap().has_membership());
    }
}

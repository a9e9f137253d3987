//! How things are written down: little-endian numbers, lengths before bytes, a checksum before each record.

use bytes::Bytes;
use quorate_core::{
    GroupId, HardState, Index, LogId, Membership, NodeId, Rebase, Run, Snapshot, Term, Write,
};

use super::{Bug, Error};

pub(crate) const MAGIC: &[u8; 8] = b"JOURNAL1";

/// What a write changes, without its receipt.
pub(crate) struct Change {
    pub(crate) group: GroupId,
    pub(crate) hard_state: Option<HardState>,
    pub(crate) rebase: Option<Rebase>,
    pub(crate) truncate: Option<Index>,
    pub(crate) entries: Vec<Run>,
}

/// One record of the journal: all of it is there or nothing.
pub(crate) enum Record {
    Recovered {
        group: GroupId,
        incarnation: u64,
    },
    Committed(Vec<Change>),
    Removed(GroupId),
    /// A whole group, as the journal begins.
    Group {
        group: GroupId,
        incarnation: u64,
        hard_state: HardState,
        base: Snapshot,
        log: Vec<Run>,
    },
}

#[derive(Default)]
pub(crate) struct Out {
    pub(crate) bytes: Vec<u8>,
    bug: Option<Bug>,
}

impl Out {
    pub(crate) const fn new(bug: Option<Bug>) -> Self {
        Self { bytes: Vec::new(), bug }
    }

    pub(crate) fn number(&mut self, n: u64) {
        self.bytes.extend_from_slice(&n.to_le_bytes());
    }

    fn group(&mut self, group: GroupId) {
        let mask = if self.bug == Some(Bug::GroupsMixed) { u64::from(u32::MAX) } else { u64::MAX };
        self.number(group.0 & mask);
    }

    pub(crate) fn blob(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    fn hard_state(&mut self, hard_state: HardState) {
        self.number(hard_state.term.0);
        self.number(hard_state.vote.map_or(0, |id| id.0));
    }

    pub(crate) fn snapshot(&mut self, snapshot: &Snapshot) {
        self.number(snapshot.last.term.0);
        self.number(snapshot.last.index.0);
        self.blob(&snapshot.membership.encode());
    }

    fn runs<'a>(&mut self, runs: impl ExactSizeIterator<Item = &'a Run>) {
        self.number(runs.len() as u64);
        for run in runs {
            self.number(run.term().0);
            self.number(run.first().0);
            self.blob(run.block());
        }
    }

    pub(crate) fn recovered(&mut self, group: GroupId, incarnation: u64) {
        self.bytes.push(0);
        self.group(group);
        self.number(incarnation);
    }

    pub(crate) fn committed<'a>(&mut self, writes: impl Iterator<Item = &'a Write> + Clone) {
        self.bytes.push(1);
        self.number(writes.clone().count() as u64);
        for write in writes {
            self.group(write.receipt().group());
            self.bytes.push(u8::from(write.hard_state.is_some()));
            if let Some(hard_state) = write.hard_state {
                self.hard_state(hard_state);
            }
            match write.rebase.as_deref() {
                None => self.bytes.push(0),
                Some(Rebase::Compact(base)) => {
                    self.bytes.push(1);
                    self.snapshot(base);
                }
                Some(Rebase::Install(snapshot)) => {
                    self.bytes.push(2);
                    self.snapshot(snapshot);
                }
            }
            self.number(write.truncate.map_or(u64::MAX, |at| at.0));
            self.runs(write.entries.iter());
        }
    }

    pub(crate) fn whole(
        &mut self,
        group: GroupId,
        incarnation: u64,
        hard_state: HardState,
        base: &Snapshot,
        log: &[Run],
    ) {
        self.bytes.push(2);
        self.group(group);
        self.number(incarnation);
        self.hard_state(hard_state);
        self.snapshot(base);
        self.runs(log.iter());
    }

    pub(crate) fn removed(&mut self, group: GroupId) {
        self.bytes.push(3);
        self.group(group);
    }

    /// With length and checksum before it.
    pub(crate) fn record(self) -> Vec<u8> {
        let mut framed = Vec::with_capacity(self.bytes.len() + 8);
        framed.extend_from_slice(&(self.bytes.len() as u32).to_le_bytes());
        framed.extend_from_slice(&crc32c::crc32c(&self.bytes).to_le_bytes());
        framed.extend_from_slice(&self.bytes);
        framed
    }
}

/// The payload of the record at the beginning of `bytes`, if there is a whole one.
pub(crate) fn unframe(bytes: &[u8], bug: Option<Bug>) -> Option<&[u8]> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let payload = rest.get(..u32::from_le_bytes(*len) as usize).filter(|payload| !payload.is_empty())?;
    let good = crc32c::crc32c(payload) == u32::from_le_bytes(*sum) || bug == Some(Bug::ChecksumIgnored);
    good.then_some(payload)
}

pub(crate) struct In<'a>(pub(crate) &'a [u8]);

impl In<'_> {
    fn byte(&mut self) -> Result<u8, Error> {
        let (byte, rest) = self.0.split_first().ok_or(Error::Damaged("a record is too short"))?;
        self.0 = rest;
        Ok(*byte)
    }

    pub(crate) fn number(&mut self) -> Result<u64, Error> {
        let (number, rest) = self.0.split_first_chunk().ok_or(Error::Damaged("a record is too short"))?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*number))
    }

    fn blob(&mut self) -> Result<Bytes, Error> {
        let len = self.number()? as usize;
        let (blob, rest) = self.0.split_at_checked(len).ok_or(Error::Damaged("a record is too short"))?;
        self.0 = rest;
        Ok(Bytes::copy_from_slice(blob))
    }

    fn hard_state(&mut self) -> Result<HardState, Error> {
        let (term, vote) = (Term(self.number()?), self.number()?);
        Ok(HardState { term, vote: (vote > 0).then_some(NodeId(vote)) })
    }

    pub(crate) fn snapshot(&mut self) -> Result<Snapshot, Error> {
        let last = LogId::new(Term(self.number()?), Index(self.number()?));
        let membership = Membership::decode(&self.blob()?).map_err(|_| Error::Damaged("no membership"))?;
        Ok(Snapshot { last, membership })
    }

    fn runs(&mut self) -> Result<Vec<Run>, Error> {
        let run = |this: &mut Self| {
            let (term, first) = (Term(this.number()?), Index(this.number()?));
            Run::parse(term, first, this.blob()?).map_err(|_| Error::Damaged("no entries"))
        };
        (0..self.number()?).map(|_| run(self)).collect()
    }

    pub(crate) fn record(&mut self) -> Result<Record, Error> {
        Ok(match self.byte()? {
            0 => Record::Recovered { group: GroupId(self.number()?), incarnation: self.number()? },
            1 => {
                let change = |this: &mut Self| {
                    let group = GroupId(this.number()?);
                    let hard_state = if this.byte()? > 0 { Some(this.hard_state()?) } else { None };
                    let rebase = match this.byte()? {
                        0 => None,
                        1 => Some(Rebase::Compact(this.snapshot()?)),
                        _ => Some(Rebase::Install(this.snapshot()?)),
                    };
                    let truncate = Some(Index(this.number()?)).filter(|at| at.0 < u64::MAX);
                    Ok(Change { group, hard_state, rebase, truncate, entries: this.runs()? })
                };
                Record::Committed((0..self.number()?).map(|_| change(self)).collect::<Result<_, Error>>()?)
            }
            2 => Record::Group {
                group: GroupId(self.number()?),
                incarnation: self.number()?,
                hard_state: self.hard_state()?,
                base: self.snapshot()?,
                log: self.runs()?,
            },
            3 => Record::Removed(GroupId(self.number()?)),
            _ => return Err(Error::Damaged("a record of an unknown kind")),
        })
    }
}

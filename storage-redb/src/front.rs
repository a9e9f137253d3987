//! The first pages of the file, in front of redb's: whose store it is, and the watermark.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0.. | identity: written once, at bootstrap |
//! | 4096.. | watermark, one of two slots |
//! | 8192.. | watermark, the other |
//! | 16384.. | redb's file |
//!
//! They share the file with the database so that one `fdatasync` covers both: the watermark of a commit becomes
//! durable along with the next commit, for no sync of its own. Each part has a page of its own, so that a page torn
//! while one is written leaves the others whole.

use std::io;

use quorate_core::{GroupId, HardState, Incarnation, Index, LogId, NodeId, Term};
use redb::StorageBackend;

use crate::{Error, Fact, Identity};

/// Where redb's part of the file begins.
pub(crate) const FRONT: u64 = 16 << 10;

/// The version of the file that this release writes. Version 1 had no `formerly`, and no snapshots beside it; up to version 2 no group was
/// ever removed: a release that does not know of it would take one again that must not come back.
const VERSION: u32 = 3;
const KNOWN: &str = "1 to 3";

const MAGIC: &[u8; 16] = b"quorate store\r\n\x1a";
const IDENTITY_LEN: usize = 16 + 4 + 16 + 8 + MAX_FORMERLY * 16 + 4;
/// How many clusters it can have been of before.
const MAX_FORMERLY: usize = 8;
const IDENTITY_LEN_1: usize = 16 + 4 + 16 + 8 + 4;

// A sector is written whole or not at all: so is an identity that replaces another.
const _: () = assert!(IDENTITY_LEN <= 512);

const SLOTS: [u64; 2] = [4096, 8192];
const SLOT_MAGIC: &[u8; 8] = b"qtrmark\x01";
const SLOT_LEN: usize = 4096;
const FACT_LEN: usize = 6 * 8;
/// The incarnation in the fact of a group that was removed: none ever has that.
const REMOVED: u64 = u64::MAX;
/// A slot has room for this many groups; of more, those beyond are known by the number of the commit alone.
const MAX_FACTS: usize = 64;

const _: () = assert!(8 + 8 + 4 + MAX_FACTS * FACT_LEN + 4 <= SLOT_LEN);

/// Writes who this store is of. Done last at bootstrap: a store without it is none.
pub(crate) fn write_identity(medium: &dyn StorageBackend, owner: Owner) -> io::Result<()> {
    let Owner { identity, formerly, version: _ } = owner;
    let mut page = Vec::with_capacity(IDENTITY_LEN);
    page.extend_from_slice(MAGIC);
    page.extend_from_slice(&VERSION.to_le_bytes());
    page.extend_from_slice(&identity.cluster.to_le_bytes());
    page.extend_from_slice(&identity.node.0.to_le_bytes());
    formerly.iter().for_each(|cluster| page.extend_from_slice(&cluster.to_le_bytes()));
    page.extend_from_slice(&crc32c::crc32c(&page).to_le_bytes());
    medium.write(0, &page)
}

/// Whose a store is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    pub(crate) identity: Identity,
    /// The clusters it was of before their quorum was lost, the latest first, then zeros:
    /// [`RedbStore::force_single`](crate::RedbStore::force_single).
    pub(crate) formerly: [u128; MAX_FORMERLY],
    /// The version of the file.
    pub(crate) version: u32,
}

impl Owner {
    pub(crate) const fn new(identity: Identity) -> Self {
        Self { identity, formerly: [0; MAX_FORMERLY], version: VERSION }
    }

    /// The same node, in another cluster from now on.
    pub(crate) fn moved_to(mut self, cluster: u128) -> Self {
        self.formerly.rotate_right(1);
        self.formerly[0] = self.identity.cluster;
        self.identity.cluster = cluster;
        Self { version: VERSION, ..self }
    }

    /// The cluster it was of before.
    pub(crate) fn former(self) -> Option<u128> {
        self.formerly.first().copied().filter(|cluster| *cluster > 0)
    }

    /// Is the file of an earlier version, to be brought up to this one?
    pub(crate) const fn is_old(self) -> bool {
        self.version < VERSION
    }
}

/// What the first page says.
pub(crate) enum Front {
    /// A store of this node.
    Of(Owner),
    /// Nothing was ever written there.
    Blank,
    /// Something else, or damaged.
    Damaged(&'static str),
}

/// Reads who this store is of.
pub(crate) fn read_identity(medium: &dyn StorageBackend) -> Result<Front, Error> {
    let io = |source| Error::Io { doing: "reading the identity of the store", source };
    if medium.len().map_err(io)? < FRONT {
        return Ok(Front::Blank);
    }
    let mut page = [0; IDENTITY_LEN];
    medium.read(0, &mut page).map_err(io)?;
    parse_identity(&page)
}

fn parse_identity(page: &[u8]) -> Result<Front, Error> {
    if page.iter().all(|byte| *byte == 0) {
        return Ok(Front::Blank);
    }
    let mut rest = Cursor(page);
    if rest.take() != Some(*MAGIC) {
        return Ok(Front::Damaged("it does not begin as a store does"));
    }
    let version = rest.u32().unwrap_or_default();
    let len = match version {
        1 => IDENTITY_LEN_1,
        2..=VERSION => IDENTITY_LEN,
        _ => return Err(Error::UnknownVersion { what: "the store's file", found: version, known: KNOWN }),
    };
    let mut parse = || {
        let (cluster, node) = (u128::from_le_bytes(rest.take()?), NodeId(rest.u64()?));
        let mut formerly = [0; MAX_FORMERLY];
        if version > 1 {
            for cluster in &mut formerly {
                *cluster = u128::from_le_bytes(rest.take()?);
            }
        }
        let sum = crc32c::crc32c(page.get(..len.checked_sub(4)?)?);
        let owner = Owner { identity: Identity { cluster, node }, formerly, version };
        (rest.u32()? == sum).then_some(owner)
    };
    Ok(parse().map_or(Front::Damaged("the checksum of the store's identity does not match"), Front::Of))
}

/// The newest commit that was acknowledged: written before the acknowledgement, durable with the next commit.
///
/// What it is for: redb's one-phase commit, opened after an unclean stop, silently falls back to the commit before
/// when the newest one is damaged. A database older than its watermark has lost something.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Watermark {
    /// The commit's number; 0 before the first.
    pub(crate) commit: u64,
    /// What it made durable, by group.
    pub(crate) facts: Vec<Fact>,
}

/// Where the next watermark goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot(usize);

impl Slot {
    /// Where the first watermark of a store goes.
    pub(crate) const FIRST: Self = Self(0);

    /// The other one.
    pub(crate) const fn other(self) -> Self {
        Self(1 - self.0)
    }

    fn offset(self) -> u64 {
        SLOTS.get(self.0).copied().unwrap_or(SLOTS[0])
    }
}

/// Writes a watermark, and leaves the other slot alone.
pub(crate) fn write_watermark(
    medium: &dyn StorageBackend,
    slot: Slot,
    commit: u64,
    facts: impl ExactSizeIterator<Item = Fact>,
) -> io::Result<()> {
    let count = facts.len().min(MAX_FACTS);
    let mut page = Vec::with_capacity(8 + 8 + 4 + count * FACT_LEN + 4);
    page.extend_from_slice(SLOT_MAGIC);
    page.extend_from_slice(&commit.to_le_bytes());
    page.extend_from_slice(&u32::try_from(count).unwrap_or(0).to_le_bytes());
    for fact in facts.take(count) {
        let vote = fact.hard_state.vote.map_or(0, |vote| vote.0);
        for number in [
            fact.group.0,
            if fact.removed { REMOVED } else { fact.incarnation.0 },
            fact.hard_state.term.0,
            vote,
            fact.last.term.0,
            fact.last.index.0,
        ] {
            page.extend_from_slice(&number.to_le_bytes());
        }
    }
    page.extend_from_slice(&crc32c::crc32c(&page).to_le_bytes());
    medium.write(slot.offset(), &page)
}

/// The newer of the two watermarks, and where the next one goes; `None` if neither is whole.
///
/// One that is not whole is expected after a power failure: it was being written.
pub(crate) fn read_watermark(medium: &dyn StorageBackend) -> io::Result<Option<(Watermark, Slot)>> {
    let mut newest: Option<(Watermark, Slot)> = None;
    for slot in [Slot(0), Slot(1)] {
        let mut page = vec![0; SLOT_LEN];
        medium.read(slot.offset(), &mut page)?;
        let Some(watermark) = parse_watermark(&page) else {
            continue;
        };
        if newest.as_ref().is_none_or(|(newest, _)| watermark.commit > newest.commit) {
            newest = Some((watermark, slot.other()));
        }
    }
    Ok(newest)
}

fn parse_watermark(page: &[u8]) -> Option<Watermark> {
    let mut rest = Cursor(page);
    if rest.take() != Some(*SLOT_MAGIC) {
        return None;
    }
    let (commit, count) = (rest.u64()?, rest.u32()? as usize);
    if count > MAX_FACTS {
        return None;
    }
    let mut facts = Vec::with_capacity(count);
    for _ in 0..count {
        let (group, incarnation) = (GroupId(rest.u64()?), Incarnation(rest.u64()?));
        let fact = Fact {
            group,
            incarnation,
            hard_state: HardState { term: Term(rest.u64()?), vote: rest.vote()? },
            last: LogId::new(Term(rest.u64()?), Index(rest.u64()?)),
            removed: false,
        };
        facts.push(if incarnation.0 == REMOVED { Fact::removed(group) } else { fact });
    }
    let body = page.len().saturating_sub(rest.0.len());
    (rest.u32()? == crc32c::crc32c(page.get(..body)?)).then_some(Watermark { commit, facts })
}

/// Reads numbers off the front of bytes.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl Cursor<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// A vote: 0 is none, for no node has that id.
    pub(crate) fn vote(&mut self) -> Option<Option<NodeId>> {
        self.u64().map(|id| (id > 0).then_some(NodeId(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::backends::InMemoryBackend;

    fn medium() -> InMemoryBackend {
        let medium = InMemoryBackend::new();
        medium.set_len(FRONT).unwrap();
        medium
    }

    fn fact(n: u64) -> Fact {
        Fact {
            group: GroupId(n),
            incarnation: Incarnation(2),
            hard_state: HardState { term: Term(n), vote: (n % 2 == 1).then_some(NodeId(n)) },
            last: LogId::new(Term(1), Index(n)),
            removed: false,
        }
    }

    #[test]
    fn that_a_group_was_removed_is_read_back() {
        let medium = medium();
        let facts = vec![fact(1), Fact::removed(GroupId(2)), fact(3)];
        write_watermark(&medium, Slot(0), 1, facts.clone().into_iter()).unwrap();
        assert_eq!(read_watermark(&medium).unwrap(), Some((Watermark { commit: 1, facts }, Slot(1))));
    }

    #[test]
    fn an_identity_is_read_back_and_every_flipped_bit_of_it_is_noticed() {
        let medium = medium();
        assert!(matches!(read_identity(&medium), Ok(Front::Blank)));
        let identity = Identity { cluster: 0xABCD << 100, node: NodeId(7) };
        let owner =
            Owner::new(Identity { cluster: 0xFE << 90, ..identity }).moved_to(3).moved_to(identity.cluster);
        assert_eq!((owner.identity, owner.former(), owner.formerly[1]), (identity, Some(3), 0xFE << 90));
        write_identity(&medium, owner).unwrap();
        assert!(matches!(read_identity(&medium), Ok(Front::Of(found)) if found == owner));
        let mut page = [0; IDENTITY_LEN];
        medium.read(0, &mut page).unwrap();
        for bit in 0..page.len() * 8 {
            let mut flipped = page;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(parse_identity(&flipped), Ok(Front::Of(_) | Front::Blank)), "bit {bit}");
        }
    }

    #[test]
    fn the_newer_whole_watermark_counts() {
        let medium = medium();
        assert_eq!(read_watermark(&medium).unwrap(), None);
        let facts = |n: u64| (0..n).map(fact).collect::<Vec<_>>();
        write_watermark(&medium, Slot(0), 1, facts(1).into_iter()).unwrap();
        assert_eq!(
            read_watermark(&medium).unwrap(),
            Some((Watermark { commit: 1, facts: facts(1) }, Slot(1)))
        );
        write_watermark(&medium, Slot(1), 2, facts(3).into_iter()).unwrap();
        assert_eq!(
            read_watermark(&medium).unwrap(),
            Some((Watermark { commit: 2, facts: facts(3) }, Slot(0)))
        );
        // Torn or flipped anywhere, the newer one is out, and the older one counts.
        let mut page = vec![0; 8 + 8 + 4 + 3 * FACT_LEN + 4];
        medium.read(SLOTS[1], &mut page).unwrap();
        for bit in 0..page.len() * 8 {
            page[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse_watermark(&page), None, "bit {bit}");
            page[bit / 8] ^= 1 << (bit % 8);
        }
        medium.write(SLOTS[1] + 100, &[0xFF]).unwrap();
        assert_eq!(
            read_watermark(&medium).unwrap(),
            Some((Watermark { commit: 1, facts: facts(1) }, Slot(1)))
        );
    }

    #[test]
    fn more_groups_than_fit_are_left_out() {
        let medium = medium();
        let facts: Vec<Fact> = (0..MAX_FACTS as u64 + 9).map(fact).collect();
        write_watermark(&medium, Slot(1), 5, facts.clone().into_iter()).unwrap();
        let (watermark, next) = read_watermark(&medium).unwrap().unwrap();
        assert_eq!((watermark.commit, next), (5, Slot(0)));
        assert_eq!(watermark.facts, facts[..MAX_FACTS]);
    }
}

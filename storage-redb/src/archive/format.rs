//! The bytes of an archive.

use quorate_core::{GroupId, Index, LogId, Membership, NodeId, Snapshot, Term};

use crate::{Error, Identity, front::Cursor};

const MAGIC: &[u8; 16] = b"quorate snap\r\n\x1a\0";
/// The version that this release writes.
const VERSION: u32 = 1;
const KNOWN: &str = "1";

/// Bytes in a block.
pub(crate) const BLOCK: usize = 64 << 10;
/// In front of a block: length and checksum.
pub(crate) const BLOCK_HEADER: usize = 8;
/// After the last block.
pub(crate) const END_LEN: usize = 20;
/// Where a block's length would be.
const END_MARK: u32 = u32::MAX;
/// In front of the membership.
const FIXED: usize = 16 + 4 + 4 + 16 + 8 + 8 + 8 + 8 + 4 + 8 + 4;
/// No membership is so large, or it is refused when it is written: some 100,000 nodes.
pub(crate) const MAX_HEADER: usize = 1 << 20;
/// Enough of a file to know how long its header is.
pub(crate) const HEADER_START: usize = 16 + 4 + 4;

/// What an archive holds, and where it is from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArchiveHeader {
    /// Whose store wrote it.
    pub identity: Identity,
    /// Of which group.
    pub group: GroupId,
    /// Where in the log it is, and the membership there.
    pub snapshot: Snapshot,
}

/// The header of an archive, and what goes with it only in a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Prefix {
    pub(crate) header: ArchiveHeader,
    /// If a peer has sent it: how many bytes were announced, with which checksum.
    pub(crate) announced: Option<(u64, u32)>,
}

impl Prefix {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let ArchiveHeader { identity, group, snapshot } = &self.header;
        let membership = snapshot.membership.encode();
        let len = FIXED + membership.len() + 4;
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&identity.cluster.to_le_bytes());
        for number in [identity.node.0, group.0, snapshot.last.term.0, snapshot.last.index.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let (bytes, checksum) = self.announced.unwrap_or_default();
        out.extend_from_slice(&u32::from(self.announced.is_some()).to_le_bytes());
        out.extend_from_slice(&bytes.to_le_bytes());
        out.extend_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(&membership);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    /// Could it be read back?
    pub(crate) fn fits(&self) -> bool {
        self.encode().len() <= MAX_HEADER
    }

    /// How long the header is that begins so.
    pub(crate) fn len(start: &[u8]) -> Result<usize, Fault> {
        let mut rest = Cursor(start);
        if rest.take() != Some(*MAGIC) {
            return Err(Fault::Damaged("it does not begin as a snapshot does"));
        }
        let (version, len) = (rest.u32(), rest.u32());
        match version {
            Some(VERSION) => {}
            Some(found) => return Err(Fault::Version(found)),
            None => return Err(Fault::Damaged("its header is cut short")),
        }
        let len = len.and_then(|len| usize::try_from(len).ok());
        len.filter(|len| (FIXED + 4..=MAX_HEADER).contains(len))
            .ok_or(Fault::Damaged("its header is not whole"))
    }

    /// Reads a header of exactly these bytes, and its checksum.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, u32), Fault> {
        let cut = Fault::Damaged("its header is cut short");
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or(cut)?;
        let sum = u32::from_le_bytes(*sum);
        if crc32c::crc32c(body) != sum {
            return Err(Fault::Damaged("the checksum of its header does not match"));
        }
        let mut rest = Cursor(body.get(HEADER_START..).unwrap_or_default());
        let mut parse = || {
            let cluster = rest.take().map(u128::from_le_bytes)?;
            let (node, group) = (NodeId(rest.u64()?), GroupId(rest.u64()?));
            let last = LogId::new(Term(rest.u64()?), Index(rest.u64()?));
            let (flag, bytes, checksum) = (rest.u32()?, rest.u64()?, rest.u32()?);
            Some((Identity { cluster, node }, group, last, (flag > 0).then_some((bytes, checksum))))
        };
        let (identity, group, last, announced) = parse().ok_or(Fault::Damaged("its header is cut short"))?;
        let membership =
            Membership::decode(rest.0).map_err(|_| Fault::Damaged("its header has no membership"))?;
        let snapshot = Snapshot { last, membership };
        Ok((Self { header: ArchiveHeader { identity, group, snapshot }, announced }, sum))
    }
}

/// Why something is no archive.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Written by another release.
    Version(u32),
    /// Not what was written.
    Damaged(&'static str),
}

impl Fault {
    /// As an error about this file.
    pub(crate) fn of(self, file: &str) -> Error {
        match self {
            Self::Version(found) => {
                Error::UnknownVersion { file: file.to_owned(), what: "a snapshot", found, known: KNOWN }
            }
            Self::Damaged(what) => Error::BadSnapshot { file: file.to_owned(), offset: None, what },
        }
    }
}

/// How long the file is, with so long a header and so many bytes in it.
pub(crate) const fn file_len(header: usize, bytes: u64) -> u64 {
    let blocks = bytes.div_ceil(BLOCK as u64);
    (header as u64)
        .saturating_add(bytes)
        .saturating_add(blocks.saturating_mul(BLOCK_HEADER as u64))
        .saturating_add(END_LEN as u64)
}

/// Where a block begins.
pub(crate) const fn block_at(header: usize, place: u64) -> u64 {
    (header as u64).saturating_add(place.saturating_mul((BLOCK + BLOCK_HEADER) as u64))
}

fn block_sum(header_sum: u32, place: u64, block: &[u8]) -> u32 {
    let mut front = [0; 16];
    let (sum, rest) = front.split_at_mut(4);
    sum.copy_from_slice(&header_sum.to_le_bytes());
    let (at, len) = rest.split_at_mut(8);
    at.copy_from_slice(&place.to_le_bytes());
    len.copy_from_slice(&u32::try_from(block.len()).unwrap_or(u32::MAX).to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&front), block)
}

/// What is in front of a block.
pub(crate) fn encode_block(header_sum: u32, place: u64, block: &[u8]) -> [u8; BLOCK_HEADER] {
    let mut out = [0; BLOCK_HEADER];
    let (len, sum) = out.split_at_mut(4);
    len.copy_from_slice(&u32::try_from(block.len()).unwrap_or(u32::MAX).to_le_bytes());
    sum.copy_from_slice(&block_sum(header_sum, place, block).to_le_bytes());
    out
}

/// A block without what is in front of it, if that is right.
pub(crate) fn decode_block(header_sum: u32, place: u64, bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = Cursor(bytes);
    let (len, sum) = (rest.u32()?, rest.u32()?);
    let block = rest.0;
    let right = u32::try_from(block.len()) == Ok(len) && block_sum(header_sum, place, block) == sum;
    right.then_some(block)
}

/// The end of an archive.
pub(crate) fn encode_end(header_sum: u32, bytes: u64, checksum: u32) -> [u8; END_LEN] {
    let mut out = [0; END_LEN];
    let mut body = Vec::with_capacity(END_LEN);
    body.extend_from_slice(&END_MARK.to_le_bytes());
    body.extend_from_slice(&bytes.to_le_bytes());
    body.extend_from_slice(&checksum.to_le_bytes());
    let sum = crc32c::crc32c_append(header_sum, &body);
    body.extend_from_slice(&sum.to_le_bytes());
    out.copy_from_slice(&body);
    out
}

/// Bytes in all and their checksum, as the end says.
pub(crate) fn decode_end(header_sum: u32, end: &[u8; END_LEN]) -> Option<(u64, u32)> {
    let (body, _) = end.split_last_chunk::<4>()?;
    let mut rest = Cursor(end);
    let (mark, bytes, checksum, sum) = (rest.u32()?, rest.u64()?, rest.u32()?, rest.u32()?);
    (mark == END_MARK && sum == crc32c::crc32c_append(header_sum, body)).then_some((bytes, checksum))
}

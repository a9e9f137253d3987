//! The one form in which payloads are recorded, and left out of a recording.

use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::SerializeSeq as _};

use crate::{
    EntryKind, EntryRefs,
    entry::{put_entry, put_header},
    wire::MAX_FRAME,
};

/// The name by which [`pack`](super::pack) knows a block when it sees one.
pub(super) const BLOCK: &str = "quorate-core:block";
/// Its forms, in the order of [`Form`].
pub(super) const PLAIN: u32 = 0;
pub(super) const LEFT_OUT: u32 = 1;

/// A block of entries. Whatever holds payloads, a batch or a run, is recorded through this.
#[derive(Clone)]
pub(crate) struct Block(pub(crate) Bytes);

/// A block as it is in a binary recording.
#[derive(Deserialize)]
enum Form {
    Plain(Bytes),
    LeftOut(Vec<Left>),
}

/// What is left of an entry without its payload.
#[derive(Deserialize)]
enum Left {
    /// So many bytes.
    Noop(u32),
    /// So many bytes.
    Command(u32),
    /// The core reads these: they stay.
    Membership(Bytes),
}

/// The same, to be written.
#[derive(Serialize)]
enum LeftRef<'a> {
    Noop(u32),
    Command(u32),
    Membership(&'a [u8]),
}

impl Serialize for Block {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            self.0.serialize(serializer)
        } else {
            serializer.serialize_newtype_variant(BLOCK, PLAIN, "Plain", &self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Block {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return Bytes::deserialize(deserializer).map(Self);
        }
        match Form::deserialize(deserializer)? {
            Form::Plain(block) => Ok(Self(block)),
            Form::LeftOut(entries) => {
                fill(&entries).map(Self).ok_or_else(|| D::Error::custom("a block is bigger than any can be"))
            }
        }
    }
}

/// A block of which the payloads are left out: a list of [`Left`].
pub(super) struct LeftOut<'a>(pub(super) &'a [u8]);

impl Serialize for LeftOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entries = || EntryRefs::of_block(self.0);
        let mut left = serializer.serialize_seq(Some(entries().count()))?;
        for entry in entries() {
            let len = u32::try_from(entry.payload.len()).unwrap_or(u32::MAX);
            left.serialize_element(&match entry.kind {
                EntryKind::Noop => LeftRef::Noop(len),
                EntryKind::Command => LeftRef::Command(len),
                EntryKind::Membership => LeftRef::Membership(entry.payload),
            })?;
        }
        left.end()
    }
}

/// A block of the same shape and length, with zeros for payloads.
fn fill(entries: &[Left]) -> Option<Bytes> {
    let mut block = Vec::new();
    for entry in entries {
        let (kind, len) = match entry {
            Left::Noop(len) => (EntryKind::Noop, *len as usize),
            Left::Command(len) => (EntryKind::Command, *len as usize),
            Left::Membership(payload) => (EntryKind::Membership, payload.len()),
        };
        if block.len().saturating_add(len) > MAX_FRAME {
            return None;
        }
        let end = block.len().saturating_add(crate::ENTRY_HEADER).saturating_add(len);
        match entry {
            Left::Membership(payload) => put_entry(&mut block, kind, payload),
            Left::Noop(_) | Left::Command(_) => {
                put_header(&mut block, kind, len);
                block.resize(end, 0);
            }
        }
    }
    Some(block.into())
}

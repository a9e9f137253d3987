//! What an archive holds, cut into blocks: for whoever writes one, wherever it goes.

use super::format::{BLOCK, END_LEN, encode_block, encode_end};

/// Fills one block after the other.
#[derive(Debug)]
pub(crate) struct Blocks {
    header_sum: u32,
    /// The block that is being filled.
    block: Vec<u8>,
    /// How many are done.
    done: u64,
    bytes: u64,
    checksum: u32,
}

impl Blocks {
    /// None yet, behind the header with this checksum.
    pub(crate) const fn new(header_sum: u32) -> Self {
        Self::after(header_sum, 0, 0)
    }

    /// So many full ones are there, with this checksum of what is in them.
    pub(crate) const fn after(header_sum: u32, done: u64, checksum: u32) -> Self {
        Self { header_sum, block: Vec::new(), done, bytes: done.saturating_mul(BLOCK as u64), checksum }
    }

    /// How many bytes came, those included that are in blocks before.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The checksum of them all.
    pub(crate) const fn checksum(&self) -> u32 {
        self.checksum
    }

    /// Takes from the front of `bytes` what fits, and gives the block if it is full by then.
    pub(crate) fn fill(&mut self, bytes: &mut &[u8]) -> Option<Vec<u8>> {
        let room = BLOCK.saturating_sub(self.block.len());
        let (now, later) = bytes.split_at(bytes.len().min(room));
        self.bytes = self.bytes.saturating_add(now.len() as u64);
        self.checksum = crc32c::crc32c_append(self.checksum, now);
        self.block.extend_from_slice(now);
        *bytes = later;
        if self.block.len() == BLOCK { self.take() } else { None }
    }

    /// The block that is being filled, with what is in front of it, if there is anything in it.
    pub(crate) fn take(&mut self) -> Option<Vec<u8>> {
        if self.block.is_empty() {
            return None;
        }
        let mut whole = encode_block(self.header_sum, self.done, &self.block).to_vec();
        whole.append(&mut self.block);
        self.done = self.done.saturating_add(1);
        Some(whole)
    }

    /// What comes after the last one.
    pub(crate) fn end(&self) -> [u8; END_LEN] {
        encode_end(self.header_sum, self.bytes, self.checksum)
    }
}

//! Writing an archive from its beginning to its end.

use std::io;

use quorate_core::SnapshotInfo;

use super::format::{ArchiveHeader, BLOCK, Prefix, encode_block, encode_end, file_len};

/// Writes an archive to anything that takes bytes.
#[derive(Debug)]
pub struct ArchiveWriter<W> {
    out: W,
    header: ArchiveHeader,
    header_sum: u32,
    /// The block that is being filled.
    block: Vec<u8>,
    /// How many are written.
    blocks: u64,
    bytes: u64,
    checksum: u32,
}

impl<W: io::Write> ArchiveWriter<W> {
    /// Begins an archive.
    ///
    /// # Errors
    /// What `out` says; if the membership is of 100,000 nodes and more.
    pub fn new(mut out: W, header: &ArchiveHeader) -> io::Result<Self> {
        let prefix = Prefix { header: header.clone(), announced: None };
        if !prefix.fits() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the membership is too large for an archive",
            ));
        }
        let prefix = prefix.encode();
        out.write_all(&prefix)?;
        Ok(Self {
            out,
            header: header.clone(),
            header_sum: sum_of(&prefix),
            block: Vec::with_capacity(BLOCK),
            blocks: 0,
            bytes: 0,
            checksum: 0,
        })
    }

    /// Adds to what it holds.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK.saturating_sub(self.block.len())));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == BLOCK {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.out.write_all(&encode_block(self.header_sum, self.blocks, &self.block))?;
        self.out.write_all(&self.block)?;
        self.block.clear();
        self.blocks = self.blocks.saturating_add(1);
        Ok(())
    }

    /// Ends it: without this it is not whole. Nothing is made durable.
    ///
    /// # Errors
    /// What `out` says.
    pub fn finish(mut self) -> io::Result<(W, SnapshotInfo)> {
        self.flush()?;
        self.out.write_all(&encode_end(self.header_sum, self.bytes, self.checksum))?;
        self.out.flush()?;
        let snapshot = self.header.snapshot;
        Ok((self.out, SnapshotInfo { snapshot, bytes: self.bytes, checksum: self.checksum }))
    }
}

impl ArchiveWriter<io::Sink> {
    /// How long an archive of so many bytes is.
    #[must_use]
    pub fn archive_len(header: &ArchiveHeader, bytes: u64) -> u64 {
        file_len(Prefix { header: header.clone(), announced: None }.encode().len(), bytes)
    }
}

/// The checksum at the end of a header.
pub(super) fn sum_of(prefix: &[u8]) -> u32 {
    prefix.last_chunk().map_or(0, |sum| u32::from_le_bytes(*sum))
}

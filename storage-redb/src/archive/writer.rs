//! Writing an archive from its beginning to its end.

use std::io;

use quorate_core::SnapshotInfo;

use super::{
    blocks::Blocks,
    format::{ArchiveHeader, Prefix, file_len},
};

/// Writes an archive to anything that takes bytes.
#[derive(Debug)]
pub struct ArchiveWriter<W> {
    out: W,
    header: ArchiveHeader,
    blocks: Blocks,
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
        Ok(Self { out, header: header.clone(), blocks: Blocks::new(sum_of(&prefix)) })
    }

    /// Adds to what it holds.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if let Some(block) = self.blocks.fill(&mut bytes) {
                self.out.write_all(&block)?;
            }
        }
        Ok(())
    }

    /// Ends it: without this it is not whole. Nothing is made durable.
    ///
    /// # Errors
    /// What `out` says.
    pub fn finish(mut self) -> io::Result<(W, SnapshotInfo)> {
        if let Some(block) = self.blocks.take() {
            self.out.write_all(&block)?;
        }
        self.out.write_all(&self.blocks.end())?;
        self.out.flush()?;
        let snapshot = self.header.snapshot;
        Ok((
            self.out,
            SnapshotInfo { snapshot, bytes: self.blocks.bytes(), checksum: self.blocks.checksum() },
        ))
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
pub(crate) fn sum_of(prefix: &[u8]) -> u32 {
    prefix.last_chunk().map_or(0, |sum| u32::from_le_bytes(*sum))
}

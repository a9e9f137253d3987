//! What a snapshot holds, read in order.

use quorate_core::{SnapshotReader, Source, StateError};

/// Reads a snapshot from its beginning to its end, for [`StateMachine::restore`](quorate_core::StateMachine::restore).
#[derive(Debug)]
pub struct SnapshotSource<R> {
    reader: R,
    at: u64,
}

impl<R: SnapshotReader> SnapshotSource<R> {
    /// From the first byte.
    pub const fn new(reader: R) -> Self {
        Self { reader, at: 0 }
    }
}

impl<R: SnapshotReader> Source for SnapshotSource<R> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, StateError> {
        let read = self.reader.read_at(self.at, out)?;
        self.at = self.at.saturating_add(read as u64);
        Ok(read)
    }
}

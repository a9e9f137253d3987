//! A file that is only looked at: what is written goes into memory, and is forgotten.

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use redb::{BackendError, StorageBackend};

/// Bytes that are kept together.
const PAGE: u64 = 4096;

/// redb repairs what an unclean stop has left, and for that it writes. Over this the file itself stays as it is. What is kept is
/// what repair writes: headers and the allocator's state, little beside the file.
#[derive(Debug)]
pub(crate) struct Overlay {
    file: Box<dyn StorageBackend>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    len: u64,
    /// How much of the file counts: what it was cut to, and made longer after, reads as zeros.
    file_len: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    pub(crate) fn new(file: Box<dyn StorageBackend>) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self { file, inner: Mutex::new(Inner { len, file_len: len, pages: BTreeMap::new() }) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the file has there, with zeros beyond its end.
    fn read_file(&self, file_len: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(file_len.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (from_file, beyond) = out.split_at_mut(there);
        beyond.fill(0);
        if from_file.is_empty() { Ok(()) } else { self.file.read(offset, from_file) }
    }
}

/// The part of a page that lies within `offset..offset + len`: where in the page, and where in the buffer.
fn overlap(page: u64, offset: u64, len: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    let start = page.saturating_mul(PAGE);
    let from = start.max(offset);
    let to = start.saturating_add(PAGE).min(offset.saturating_add(len as u64));
    let within = |at: u64, base: u64| usize::try_from(at.saturating_sub(base)).unwrap_or(usize::MAX);
    (within(from, start)..within(to, start), within(from, offset)..within(to, offset))
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.lock();
        let end = offset.saturating_add(out.len() as u64);
        if end > inner.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_file(inner.file_len, offset, out)?;
        for (page, bytes) in inner.pages.range(offset / PAGE..=end / PAGE) {
            let (in_page, in_out) = overlap(*page, offset, out.len());
            if let (Some(to), Some(from)) = (out.get_mut(in_out), bytes.get(in_page)) {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.lock();
        inner.file_len = inner.file_len.min(len);
        inner.pages.split_off(&len.div_ceil(PAGE));
        if let Some(last) = inner.pages.get_mut(&(len / PAGE)) {
            let keep = usize::try_from(len % PAGE).unwrap_or(0);
            last.get_mut(keep..).unwrap_or_default().fill(0);
        }
        inner.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.lock();
        let end = offset.saturating_add(data.len() as u64);
        for page in offset / PAGE..end.div_ceil(PAGE) {
            let (in_page, in_data) = overlap(page, offset, data.len());
            if !inner.pages.contains_key(&page) {
                let mut bytes = vec![0; PAGE as usize].into_boxed_slice();
                self.read_file(inner.file_len, page.saturating_mul(PAGE), &mut bytes)?;
                inner.pages.insert(page, bytes);
            }
            if let Some(bytes) = inner.pages.get_mut(&page)
                && let (Some(to), Some(from)) = (bytes.get_mut(in_page), data.get(in_data))
            {
                to.copy_from_slice(from);
            }
        }
        inner.len = inner.len.max(end);
        Ok(())
    }

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        // Nobody else writes: whoever looks has the directory.
        Ok(true)
    }

    fn try_lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn query_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;

    #[derive(Clone, Debug)]
    enum Op {
        Write(u64, Vec<u8>),
        SetLen(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (0..20_000_u64, prop::collection::vec(any::<u8>(), 0..9_000)).prop_map(|(at, data)| Op::Write(at, data)),
            1 => (0..30_000_u64).prop_map(Op::SetLen),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 50, failure_persistence: None, ..ProptestConfig::default() })]

        /// It reads like a file to which the same was done, and the file beneath is as it was.
        #[test]
        fn reads_back_what_was_written_over_the_file(start in prop::collection::vec(any::<u8>(), 0..20_000), ops in prop::collection::vec(op(), 0..20)) {
            let file = InMemoryBackend::new();
            file.set_len(start.len() as u64)?;
            file.write(0, &start)?;
            let overlay = Overlay::new(Box::new(file))?;
            let mut model = start.clone();
            for op in ops {
                match op {
                    Op::Write(at, data) => {
                        overlay.write(at, &data)?;
                        let (from, to) = (at as usize, at as usize + data.len());
                        model.resize(model.len().max(to), 0);
                        model[from..to].copy_from_slice(&data);
                    }
                    Op::SetLen(len) => {
                        overlay.set_len(len)?;
                        model.resize(len as usize, 0);
                    }
                }
                prop_assert_eq!(overlay.len()?, model.len() as u64);
                let mut found = vec![0; model.len()];
                overlay.read(0, &mut found)?;
                prop_assert!(found == model);
                let half = model.len() / 3;
                overlay.read(half as u64, &mut found[half..])?;
                prop_assert!(found == model);
            }
            let mut beneath = vec![0; start.len()];
            overlay.file.read(0, &mut beneath)?;
            prop_assert!(beneath == start);
        }
    }
}

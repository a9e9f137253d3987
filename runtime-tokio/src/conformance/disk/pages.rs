//! What a file holds, in pages that copies share until one of them is written.

use std::{io, sync::Arc};

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;

type Page = [u8; PAGE];

static ZEROS: Page = [0; PAGE];

/// The bytes of a file. A clone costs a reference count for each page, and no bytes.
#[derive(Clone, Default)]
pub(super) struct Pages {
    len: u64,
    /// `None`: zeros.
    pages: Vec<Option<Arc<Page>>>,
}

/// A part of a write that lies within one page.
#[derive(Clone)]
pub(super) enum Piece {
    /// All of it, shared with the file that was written.
    Whole(usize, Arc<Page>),
    /// From this byte of it on.
    Part(usize, usize, Box<[u8]>),
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "an offset that no file has")
}

fn pages_of(len: u64) -> io::Result<usize> {
    // No test needs more than 1 TiB, and who asks for it has a bug.
    if len > 1 << 40 {
        return Err(too_large());
    }
    usize::try_from(len.div_ceil(PAGE as u64)).map_err(|_| too_large())
}

impl Pages {
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= self.len);
        if end.is_none() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (mut at, mut done) = (offset as usize, 0);
        while done < out.len() {
            let (page, start) = (at / PAGE, at % PAGE);
            let count = (PAGE - start).min(out.len() - done);
            let bytes = self.pages[page].as_deref().unwrap_or(&ZEROS);
            out[done..done + count].copy_from_slice(&bytes[start..start + count]);
            at += count;
            done += count;
        }
        Ok(())
    }

    /// Writes, and makes the file longer if need be.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(data.len() as u64).ok_or_else(too_large)?;
        pages_of(end)?;
        if end > self.len && !data.is_empty() {
            self.set_len(end)?;
        }
        let (mut at, mut rest) = (offset as usize, data);
        while !rest.is_empty() {
            let (page, start) = (at / PAGE, at % PAGE);
            let (now, later) = rest.split_at((PAGE - start).min(rest.len()));
            self.put(page, start, now);
            at += now.len();
            rest = later;
        }
        Ok(())
    }

    /// What was just written there, in pieces.
    pub(super) fn pieces(&self, offset: u64, data: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::with_capacity(data.len() / PAGE + 2);
        let (mut at, mut rest) = (offset as usize, data);
        while !rest.is_empty() {
            let (page, start) = (at / PAGE, at % PAGE);
            let (now, later) = rest.split_at((PAGE - start).min(rest.len()));
            pieces.push(match &self.pages[page] {
                Some(whole) if now.len() == PAGE => Piece::Whole(page, whole.clone()),
                _ => Piece::Part(page, start, now.into()),
            });
            at += now.len();
            rest = later;
        }
        pieces
    }

    pub(super) fn set_len(&mut self, len: u64) -> io::Result<()> {
        let count = pages_of(len)?;
        self.pages.resize(count, None);
        let (last, within) = ((len / PAGE as u64) as usize, (len % PAGE as u64) as usize);
        // What is beyond the end must be zeros when the file grows again.
        if len < self.len
            && within > 0
            && let Some(page) = &mut self.pages[last]
        {
            Arc::make_mut(page)[within..].fill(0);
        }
        self.len = len;
        Ok(())
    }

    /// Puts a piece in its place, whether that is within the file's length or not.
    pub(super) fn place(&mut self, piece: &Piece) {
        match piece {
            Piece::Whole(page, whole) => {
                self.reach(*page);
                self.pages[*page] = Some(whole.clone());
            }
            Piece::Part(page, start, data) => {
                self.reach(*page);
                self.put(*page, *start, data);
            }
        }
    }

    /// Puts those sectors of a piece in their place that `stays` picks.
    pub(super) fn place_some(&mut self, piece: &Piece, sector: usize, mut stays: impl FnMut() -> bool) {
        let (page, start, data): (usize, usize, &[u8]) = match piece {
            Piece::Whole(page, whole) => (*page, 0, &whole[..]),
            Piece::Part(page, start, data) => (*page, *start, data),
        };
        let (mut from, end) = (start, start + data.len());
        while from < end {
            // Sectors are the disk's, not the write's.
            let to = end.min((from / sector + 1) * sector);
            if stays() {
                self.reach(page);
                self.put(page, from, &data[from - start..to - start]);
            }
            from = to;
        }
    }

    /// Says how long it is, after pieces were placed beyond its end: they are cut off, or are part of it now.
    pub(super) fn claim_len(&mut self, len: u64) {
        self.len = self.len.max(len);
    }

    /// Cuts off what lies beyond the end.
    pub(super) fn trim(&mut self) {
        let len = self.len;
        self.len = u64::MAX;
        // The length is that of a file, so it is not out of range.
        let _fits = self.set_len(len);
    }

    /// So many pages hold something.
    fn reach(&mut self, page: usize) {
        if page >= self.pages.len() {
            self.pages.resize(page + 1, None);
        }
    }

    fn put(&mut self, page: usize, start: usize, data: &[u8]) {
        let page = &mut self.pages[page];
        if data.len() == PAGE {
            let mut whole = [0; PAGE];
            whole.copy_from_slice(data);
            *page = Some(Arc::new(whole));
            return;
        }
        let page = page.get_or_insert_with(|| Arc::new(ZEROS));
        Arc::make_mut(page)[start..start + data.len()].copy_from_slice(data);
    }
}

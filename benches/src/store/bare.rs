//! redb as it is: one value an entry.

use std::path::Path;

use anyhow::Result;
use redb::{Database, TableDefinition, WriteTransaction};

use super::{
    Case,
    counting::{Counting, Counts, Io},
    payload,
    turns::Variant,
};

const TABLE: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");
/// Above the indexes in a key.
const GROUP_SHIFT: u32 = 40;

/// How a transaction is committed.
pub(super) type Mode = fn(&mut WriteTransaction);

pub(super) struct Bare {
    pub(super) db: Database,
    pub(super) case: Case,
    pub(super) next: u64,
    mode: Mode,
    counts: Counts,
    payloads: Vec<(u64, Vec<u8>)>,
}

impl Bare {
    pub(super) fn new(path: &Path, case: Case, cache: usize, mode: Mode) -> Result<Self> {
        let counts = Counts::default();
        let backend = Counting::create(path, counts.clone())?;
        let db = Database::builder().set_cache_size(cache).create_with_backend(backend)?;
        Ok(Self::on(db, case, counts, mode))
    }

    pub(super) fn on(db: Database, case: Case, counts: Counts, mode: Mode) -> Self {
        Self { db, case, next: 0, mode, counts, payloads: Vec::new() }
    }
}

impl Variant for Bare {
    fn prepare(&mut self) -> Result<()> {
        self.payloads.clear();
        for group in 0..self.case.groups as u64 {
            for entry in 0..self.case.entries as u64 {
                let index = self.next + entry;
                self.payloads.push((group << GROUP_SHIFT | index, payload(index, self.case.payload)));
            }
        }
        self.next += self.case.entries as u64;
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        let mut txn = self.db.begin_write()?;
        (self.mode)(&mut txn);
        {
            let mut table = txn.open_table(TABLE)?;
            for (key, payload) in &self.payloads {
                table.insert(key, payload.as_slice())?;
            }
        }
        txn.commit()?;
        Ok(())
    }

    fn io(&self) -> Io {
        self.counts.so_far()
    }

    fn space(&self) -> Result<Option<f64>> {
        let payload = self.next * (self.case.groups * self.case.payload) as u64;
        space(&self.db, payload).map(Some)
    }
}

/// Bytes of the pages in use, for each byte of `payload` that is in the database.
pub(super) fn space(db: &Database, payload: u64) -> Result<f64> {
    let txn = db.begin_write()?;
    let stats = txn.stats()?;
    txn.abort()?;
    Ok((stats.allocated_pages() * stats.page_size() as u64) as f64 / payload as f64)
}

//! Keys and their history.

use bytes::Bytes;

use super::{cow::CowMap, error::KvError, hash::Hasher, range::Keys};
use crate::pb::mvccpb::KeyValue;

/// What a version of a key costs in memory beside key and value, roughly: for [`Store::bytes`].
const VERSION_BYTES: u64 = 64;

/// Every key that ever was, with all its versions since the last compaction.
///
/// A revision is a state of the whole store. A transaction makes one, whatever it changes; within it a key can have
/// several versions, of which the last one counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Store {
    keys: CowMap<Vec<Version>>,
    revision: i64,
    compacted: i64,
    bytes: u64,
}

/// A key between two changes of it; oldest first in the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Version {
    /// The revision that made it.
    pub(super) modified: i64,
    /// What was stored; `None`: deleted.
    pub(super) stored: Option<Stored>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stored {
    pub(super) created: i64,
    pub(super) version: i64,
    pub(super) value: Bytes,
    pub(super) lease: i64,
}

impl Store {
    /// An empty store, at revision 1 as etcd's.
    pub(super) const fn new() -> Self {
        Self::at_revision(1, -1)
    }

    /// Without keys, at this revision and with the last compaction at that one: to be filled with [`Store::append`].
    pub(super) const fn at_revision(revision: i64, compacted: i64) -> Self {
        Self { keys: CowMap::new(), revision, compacted, bytes: 0 }
    }

    /// Puts a key there with its versions; it is to come after all others.
    pub(super) fn append(&mut self, key: Bytes, versions: Vec<Version>) {
        for version in &versions {
            self.bytes = self.bytes.saturating_add(cost(&key, version));
        }
        let at = key.clone();
        self.keys.update(&at, versions, |there, versions| *there = versions, |versions| (key, versions));
    }

    /// How many keys there are, those included that only have a history.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// All keys with their versions, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(Bytes, Vec<Version>)> {
        self.keys.iter()
    }

    /// The newest revision.
    pub(super) const fn revision(&self) -> i64 {
        self.revision
    }

    /// The revision of the last compaction, the oldest that can be read; -1 before the first.
    pub(super) const fn compacted(&self) -> i64 {
        self.compacted
    }

    /// About how much memory is used.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The newest revision has this number from now on.
    pub(super) fn commit(&mut self, revision: i64) {
        self.revision = self.revision.max(revision);
    }

    /// Can `revision` still, or already, be read?
    pub(super) const fn readable(&self, revision: i64) -> Result<(), KvError> {
        if revision > self.revision {
            Err(KvError::FutureRevision)
        } else if revision < self.compacted {
            Err(KvError::Compacted)
        } else {
            Ok(())
        }
    }

    /// What exists at `revision`, in the order of keys.
    pub(super) fn at<'a>(&'a self, keys: &'a Keys, revision: i64) -> impl Iterator<Item = Found<'a>> {
        let in_range = keys.bounds().map(|bounds| self.keys.range(bounds));
        in_range.into_iter().flatten().filter_map(move |(key, versions)| {
            let upto = versions.partition_point(|version| version.modified <= revision);
            let version = versions.get(upto.checked_sub(1)?)?;
            let stored = version.stored.as_ref()?;
            Some(Found { key, modified: version.modified, stored })
        })
    }

    /// What `key` is now.
    pub(super) fn get(&self, key: &[u8]) -> Option<Found<'_>> {
        let (key, versions) = self.keys.get(key)?;
        let version = versions.last()?;
        Some(Found { key, modified: version.modified, stored: version.stored.as_ref()? })
    }

    /// Writes a key, in the revision that is to be `revision`.
    pub(super) fn put(&mut self, key: &Bytes, value: &Bytes, lease: i64, revision: i64) {
        let (created, version) = self
            .get(key)
            .map_or((revision, 1), |was| (was.stored.created, was.stored.version.saturating_add(1)));
        // Copies: a small value must not keep the whole log entry, and its batch, in memory.
        let value = Bytes::copy_from_slice(value);
        self.push(
            key,
            Version { modified: revision, stored: Some(Stored { created, version, value, lease }) },
        );
    }

    /// Deletes what there is of `keys`, in the revision that is to be `revision`; says how many there were.
    pub(super) fn delete(&mut self, keys: &Keys, revision: i64) -> i64 {
        // Copies of handles, not of bytes.
        let there: Vec<Bytes> = self.at(keys, i64::MAX).map(|found| found.key.clone()).collect();
        for key in &there {
            self.push(key, Version { modified: revision, stored: None });
        }
        i64::try_from(there.len()).unwrap_or(i64::MAX)
    }

    fn push(&mut self, key: &Bytes, version: Version) {
        self.bytes = self.bytes.saturating_add(cost(key, &version));
        let first = |version| (Bytes::copy_from_slice(key), vec![version]);
        self.keys.update(key, version, Vec::push, first);
    }

    /// Forgets all that was superseded at `revision` or before. Looks at every key.
    ///
    /// # Errors
    /// If that was done already, or `revision` does not exist yet.
    pub(super) fn compact(&mut self, revision: i64) -> Result<(), KvError> {
        if revision <= self.compacted {
            return Err(KvError::Compacted);
        }
        if revision > self.revision {
            return Err(KvError::FutureRevision);
        }
        self.compacted = revision;
        let mut freed = 0;
        let forget = |versions: &[Version]| {
            let upto = versions.partition_point(|version| version.modified <= revision);
            // The last of them is what the key is at `revision`: it stays, unless it's that the key isn't.
            let last = upto.saturating_sub(1);
            let lives = versions.get(last).is_some_and(|version| version.stored.is_some());
            if lives { last } else { upto }
        };
        let wanted = |versions: &Vec<Version>| forget(versions) > 0;
        self.keys.retain(wanted, |key, versions| {
            let gone = forget(versions);
            freed += versions.drain(..gone).map(|version| cost(key, &version)).sum::<u64>();
            versions.shrink_to_fit();
            !versions.is_empty()
        });
        self.bytes = self.bytes.saturating_sub(freed);
        Ok(())
    }

    /// All versions up to `revision`.
    pub(super) fn hash(&self, revision: i64, hasher: &mut Hasher) {
        for (key, versions) in self.keys.iter() {
            for version in versions.iter().filter(|version| version.modified <= revision) {
                version.hash(key, hasher);
            }
        }
    }
}

impl Version {
    /// This version of `key`.
    pub(super) fn hash(&self, key: &[u8], hasher: &mut Hasher) {
        hasher.bytes(key);
        hasher.number(self.modified);
        match &self.stored {
            None => hasher.number(0),
            Some(stored) => {
                hasher.number(stored.version);
                hasher.number(stored.created);
                hasher.number(stored.lease);
                hasher.bytes(&stored.value);
            }
        }
    }
}

fn cost(key: &[u8], version: &Version) -> u64 {
    let value = version.stored.as_ref().map_or(0, |stored| stored.value.len());
    VERSION_BYTES.saturating_add((key.len() as u64).saturating_add(value as u64))
}

/// A key that exists.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    key: &'a Bytes,
    modified: i64,
    stored: &'a Stored,
}

impl Found<'_> {
    pub(super) const fn mod_revision(&self) -> i64 {
        self.modified
    }

    pub(super) const fn create_revision(&self) -> i64 {
        self.stored.created
    }

    pub(super) const fn version(&self) -> i64 {
        self.stored.version
    }

    pub(super) const fn key(&self) -> &Bytes {
        self.key
    }

    pub(super) const fn value(&self) -> &Bytes {
        &self.stored.value
    }

    /// As it is answered; key and value are shared, not copied.
    pub(super) fn to_key_value(self) -> KeyValue {
        KeyValue {
            key: self.key.clone(),
            create_revision: self.stored.created,
            mod_revision: self.modified,
            version: self.stored.version,
            value: self.stored.value.clone(),
            lease: self.stored.lease,
        }
    }
}

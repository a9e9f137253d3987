//! A store whose types are not known: so that the suite is compiled once, optimised, and not for every store anew.

use std::{error::Error, fmt};

use quorate_core::{
    GroupId, Load, Loaded, LogId, LogReader, Membership, Recovered, Snapshot, SnapshotInfo, SnapshotReader,
    SnapshotWriter, Snapshots, Store, Write,
};

/// What a store said went wrong.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    text: String,
    pub(super) absent: bool,
    pub(super) damage: bool,
    /// Whose write was refused, of a commit: see [`Store::refused`].
    pub(super) refused: Option<GroupId>,
}

/// What its harness makes of an error.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Verdict {
    pub(super) absent: bool,
    pub(super) damage: bool,
}

pub(super) trait Judge<E>: Sync {
    fn judge(&self, error: &E) -> Verdict;
}

/// For stores without a harness.
pub(super) struct Unjudged;

pub(super) trait AnyStore<'a> {
    fn groups(&self) -> Result<Vec<GroupId>, Trouble>;
    fn create(&mut self, group: GroupId, membership: &Membership) -> Result<(), Trouble>;
    fn create_many(&mut self, groups: &[(GroupId, Membership)]) -> Result<(), Trouble>;
    fn remove(&mut self, group: GroupId) -> Result<(), Trouble>;
    fn recover(&mut self, group: GroupId) -> Result<Recovered, Trouble>;
    fn recover_many(&mut self, groups: &[GroupId]) -> Result<Vec<Recovered>, Trouble>;
    fn commit(&mut self, writes: &[Write]) -> Result<(), Trouble>;
    fn settle(&mut self) -> Result<(), Trouble>;
    fn reader(&self) -> Box<dyn AnyReader + 'a>;
    fn snapshots(&self) -> Box<dyn AnySnapshots<'a> + 'a>;
}

pub(super) trait AnyReader: Send {
    fn another(&self) -> Box<dyn AnyReader + '_>;
    fn load(&self, group: GroupId, load: &Load) -> Result<Loaded, Trouble>;
}

pub(super) trait AnySnapshots<'a>: Send {
    fn list(&self, group: GroupId) -> Result<Vec<SnapshotInfo>, Trouble>;
    fn take(&self, group: GroupId, snapshot: &Snapshot) -> Result<Box<dyn AnyWriter + 'a>, Trouble>;
    fn receive(&self, group: GroupId, info: &SnapshotInfo) -> Result<Box<dyn AnyWriter + 'a>, Trouble>;
    fn open(&self, group: GroupId, last: LogId) -> Result<Option<Box<dyn AnySource + 'a>>, Trouble>;
}

pub(super) trait AnyWriter: Send {
    fn staged(&self) -> u64;
    fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble>;
    fn sync(&mut self) -> Result<(), Trouble>;
    fn publish(self: Box<Self>) -> Result<SnapshotInfo, Trouble>;
}

pub(super) trait AnySource: Send {
    fn info(&self) -> &SnapshotInfo;
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<usize, Trouble>;
}

/// Something of a store, and who judges its errors.
pub(super) struct Erased<'a, T, E> {
    pub(super) it: T,
    pub(super) judge: &'a dyn Judge<E>,
}

impl Trouble {
    /// Something that the suite has found, and not the store.
    pub(super) const fn new(text: String) -> Self {
        Self { text, absent: false, damage: false, refused: None }
    }

    pub(super) fn of<E: Error>(judge: &dyn Judge<E>, error: &E) -> Self {
        let Verdict { absent, damage } = judge.judge(error);
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        Self { text, absent, damage, refused: None }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<E> Judge<E> for Unjudged {
    fn judge(&self, _: &E) -> Verdict {
        Verdict::default()
    }
}

impl<'a, T, E: Error> Erased<'a, T, E> {
    fn tell<O>(&self, result: Result<O, E>) -> Result<O, Trouble> {
        result.map_err(|error| Trouble::of(self.judge, &error))
    }

    fn like<U>(&self, it: U) -> Erased<'a, U, E> {
        Erased { it, judge: self.judge }
    }
}

impl<'a, S: Store> AnyStore<'a> for Erased<'a, S, S::Error> {
    fn groups(&self) -> Result<Vec<GroupId>, Trouble> {
        self.tell(self.it.groups())
    }

    fn create(&mut self, group: GroupId, membership: &Membership) -> Result<(), Trouble> {
        let result = self.it.create(group, membership);
        self.tell(result)
    }

    fn create_many(&mut self, groups: &[(GroupId, Membership)]) -> Result<(), Trouble> {
        let result = self.it.create_many(groups);
        self.tell(result)
    }

    fn remove(&mut self, group: GroupId) -> Result<(), Trouble> {
        let result = self.it.remove(group);
        self.tell(result)
    }

    fn recover(&mut self, group: GroupId) -> Result<Recovered, Trouble> {
        let result = self.it.recover(group);
        self.tell(result)
    }

    fn recover_many(&mut self, groups: &[GroupId]) -> Result<Vec<Recovered>, Trouble> {
        let result = self.it.recover_many(groups);
        self.tell(result)
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), Trouble> {
        let result = self.it.commit(writes);
        result.map_err(|error| Trouble { refused: S::refused(&error), ..Trouble::of(self.judge, &error) })
    }

    fn settle(&mut self) -> Result<(), Trouble> {
        let result = self.it.settle();
        self.tell(result)
    }

    fn reader(&self) -> Box<dyn AnyReader + 'a> {
        Box::new(self.like(self.it.reader()))
    }

    fn snapshots(&self) -> Box<dyn AnySnapshots<'a> + 'a> {
        Box::new(self.like(self.it.snapshots()))
    }
}

impl<R: LogReader> AnyReader for Erased<'_, R, R::Error> {
    fn another(&self) -> Box<dyn AnyReader + '_> {
        Box::new(self.like(self.it.clone()))
    }

    fn load(&self, group: GroupId, load: &Load) -> Result<Loaded, Trouble> {
        self.tell(self.it.load(group, load))
    }
}

impl<'a, S: Snapshots> AnySnapshots<'a> for Erased<'a, S, S::Error> {
    fn list(&self, group: GroupId) -> Result<Vec<SnapshotInfo>, Trouble> {
        self.tell(self.it.list(group))
    }

    fn take(&self, group: GroupId, snapshot: &Snapshot) -> Result<Box<dyn AnyWriter + 'a>, Trouble> {
        Ok(Box::new(self.like(self.tell(self.it.take(group, snapshot))?)))
    }

    fn receive(&self, group: GroupId, info: &SnapshotInfo) -> Result<Box<dyn AnyWriter + 'a>, Trouble> {
        Ok(Box::new(self.like(self.tell(self.it.receive(group, info))?)))
    }

    fn open(&self, group: GroupId, last: LogId) -> Result<Option<Box<dyn AnySource + 'a>>, Trouble> {
        let reader = self.tell(self.it.open(group, last))?;
        Ok(reader.map(|reader| Box::new(self.like(reader)) as Box<dyn AnySource + 'a>))
    }
}

impl<W: SnapshotWriter> AnyWriter for Erased<'_, W, W::Error> {
    fn staged(&self) -> u64 {
        self.it.staged()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        let result = self.it.write(bytes);
        self.tell(result)
    }

    fn sync(&mut self) -> Result<(), Trouble> {
        let result = self.it.sync();
        self.tell(result)
    }

    fn publish(self: Box<Self>) -> Result<SnapshotInfo, Trouble> {
        let Self { it, judge } = *self;
        it.publish().map_err(|error| Trouble::of(judge, &error))
    }
}

impl<R: SnapshotReader> AnySource for Erased<'_, R, R::Error> {
    fn info(&self) -> &SnapshotInfo {
        self.it.info()
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<usize, Trouble> {
        let result = self.it.read_at(offset, out);
        self.tell(result)
    }
}

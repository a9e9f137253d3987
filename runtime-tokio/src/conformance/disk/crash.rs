//! What a crash leaves, at any point of a trace.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use super::{Disk, File, Io, IoKind, Pages};
use crate::conformance::Rng;

/// What tears: a sector is written whole or not at all.
const SECTOR: usize = 512;

/// What was done to a [`Disk`], and what was on it before.
#[derive(Default)]
pub struct Trace {
    names: BTreeMap<Arc<str>, usize>,
    files: Vec<Pages>,
    ios: Vec<Io>,
}

/// How much of what was not durable a crash leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// Nothing: the power failed.
    Nothing,
    /// All: only the process was killed.
    All,
    /// So many percent: any sectors of any writes, in any order, and any changes of names. A rename is whole or not, and
    /// of the changes that concern one name none is there without those before it.
    Some(u64),
    /// Only the newest so many writes and changes.
    Newest(u64),
}

/// One step of a [`Replay`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// An I/O.
    Io(IoKind),
    /// A [mark](Disk::mark).
    Mark(u64),
}

/// Goes through a [`Trace`] step by step, and makes the images that a crash leaves there.
pub struct Replay<'a> {
    trace: &'a Trace,
    ios: &'a [Io],
    next: usize,
    files: Vec<Replayed>,
    /// What is there, and what is durable.
    live: BTreeMap<Arc<str>, usize>,
    durable: BTreeMap<Arc<str>, usize>,
    /// Changes of names that are on their way: the number of the change, and where it is in the trace.
    pending: Vec<(u64, usize)>,
    /// How many changes there were, of names and of files.
    changes: u64,
}

#[derive(Default)]
struct Replayed {
    live: Pages,
    durable: Pages,
    pending: Vec<(u64, Pending)>,
}

#[derive(Clone, Copy)]
struct Pending {
    io: usize,
    /// It makes the file longer.
    grows: bool,
}

impl Trace {
    pub(super) fn starting_with(names: &BTreeMap<Arc<str>, usize>, files: &[File]) -> Self {
        let files = files.iter().map(|file| file.pages.clone()).collect();
        Self { names: names.clone(), files, ios: Vec::new() }
    }

    pub(super) fn push(&mut self, io: Io) {
        self.ios.push(io);
    }

    /// How many steps it has: I/Os and marks.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ios.len()
    }

    /// Has it none?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ios.is_empty()
    }

    /// From the beginning.
    #[must_use]
    pub fn replay(&self) -> Replay<'_> {
        let file =
            |pages: &Pages| Replayed { live: pages.clone(), durable: pages.clone(), pending: Vec::new() };
        Replay {
            trace: self,
            ios: &self.ios,
            next: 0,
            files: self.files.iter().map(file).collect(),
            live: self.names.clone(),
            durable: self.names.clone(),
            pending: Vec::new(),
            changes: 0,
        }
    }
}

impl Io {
    fn names(&self) -> [Option<&str>; 2] {
        match self {
            Self::Create { name, .. } | Self::Remove { name } => [Some(&**name), None],
            Self::Rename { from, to, .. } => [Some(&**from), Some(&**to)],
            Self::Write { .. }
            | Self::SetLen { .. }
            | Self::Sync { .. }
            | Self::FailedSync { .. }
            | Self::SyncDirectory
            | Self::FailedSyncDirectory
            | Self::Mark(_) => [None, None],
        }
    }

    fn change(&self, names: &mut BTreeMap<Arc<str>, usize>) {
        match self {
            Self::Create { name, file } => {
                names.insert(name.clone(), *file);
            }
            Self::Rename { from, to, file } => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            Self::Remove { name } => {
                names.remove(name);
            }
            Self::Write { .. }
            | Self::SetLen { .. }
            | Self::Sync { .. }
            | Self::FailedSync { .. }
            | Self::SyncDirectory
            | Self::FailedSyncDirectory
            | Self::Mark(_) => {}
        }
    }
}

impl Replay<'_> {
    /// Does the next thing. What a failed sync has made durable is drawn from `rng`.
    pub fn step(&mut self, rng: &mut Rng) -> Option<Event> {
        let (at, io) = (self.next, self.ios.get(self.next)?);
        self.next += 1;
        Some(Event::Io(match io {
            Io::Write { file, at: offset, len, pieces } => {
                let replayed = &mut self.files[*file];
                let end = offset.saturating_add(*len as u64);
                let grows = end > replayed.live.len();
                pieces.iter().for_each(|piece| replayed.live.place(piece));
                replayed.live.claim_len(end);
                self.wait(*file, Pending { io: at, grows });
                IoKind::Write
            }
            Io::SetLen { file, len } => {
                let replayed = &mut self.files[*file];
                let grows = *len > replayed.live.len();
                // It did so before.
                let _again = replayed.live.set_len(*len);
                self.wait(*file, Pending { io: at, grows });
                IoKind::SetLen
            }
            Io::Sync { file } => {
                self.settle(*file, Left::All, rng);
                IoKind::Sync
            }
            Io::FailedSync { file } => {
                self.settle(*file, Left::Some(50), rng);
                IoKind::Sync
            }
            Io::Create { file, .. } => {
                if *file >= self.files.len() {
                    self.files.resize_with(*file + 1, Replayed::default);
                }
                self.change_names(at, io);
                IoKind::Create
            }
            Io::Rename { .. } => {
                self.change_names(at, io);
                IoKind::Rename
            }
            Io::Remove { .. } => {
                self.change_names(at, io);
                IoKind::Remove
            }
            Io::SyncDirectory => {
                for (_, pending) in std::mem::take(&mut self.pending) {
                    self.ios[pending].change(&mut self.durable);
                }
                IoKind::SyncDirectory
            }
            Io::FailedSyncDirectory => {
                self.durable = self.names(Left::Some(50), rng);
                self.pending.clear();
                IoKind::SyncDirectory
            }
            Io::Mark(mark) => return Some(Event::Mark(*mark)),
        }))
    }

    /// How many steps it has done.
    #[must_use]
    pub const fn done(&self) -> usize {
        self.next
    }

    /// Is anything on its way? If not, all kinds of crashes leave the same, unless a sync has failed.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty() || self.files.iter().any(|file| !file.pending.is_empty())
    }

    /// What a crash leaves here.
    #[must_use]
    pub fn image(&self, left: Left, rng: &mut Rng) -> Disk {
        if left == Left::All {
            return Disk::of(
                self.live.iter().map(|(name, file)| (name.clone(), self.files[*file].live.clone())),
            );
        }
        let names = self.names(left, rng);
        Disk::of(names.into_iter().map(|(name, file)| (name, self.pages(file, left, rng))))
    }

    /// What another process finds if this one is killed here, and the machine runs on: all is there, but what was not durable is
    /// not yet, and may be lost still. The disk's [trace](Disk::take_trace) begins with all that was done until now.
    #[must_use]
    pub fn killed(&self) -> Disk {
        let Trace { names, files, ios } = self.trace;
        let ios = ios.iter().take(self.next).cloned().collect();
        let trace = Trace { names: names.clone(), files: files.clone(), ios };
        Disk::going_on(&self.live, self.files.iter().map(|file| file.live.clone()), trace)
    }

    fn wait(&mut self, file: usize, pending: Pending) {
        self.changes += 1;
        self.files[file].pending.push((self.changes, pending));
    }

    fn change_names(&mut self, at: usize, io: &Io) {
        self.changes += 1;
        io.change(&mut self.live);
        self.pending.push((self.changes, at));
    }

    fn settle(&mut self, file: usize, left: Left, rng: &mut Rng) {
        self.files[file].durable = self.pages(file, left, rng);
        self.files[file].pending.clear();
    }

    fn waiting(&self) -> u64 {
        (self.pending.len() + self.files.iter().map(|file| file.pending.len()).sum::<usize>()) as u64
    }

    fn names(&self, left: Left, rng: &mut Rng) -> BTreeMap<Arc<str>, usize> {
        let mut names = self.durable.clone();
        let mut lost: BTreeSet<&str> = BTreeSet::new();
        for (change, at) in &self.pending {
            let io = &self.ios[*at];
            let rests_on_lost = io.names().into_iter().flatten().any(|name| lost.contains(name));
            if self.stays(left, *change, rng) && !rests_on_lost {
                io.change(&mut names);
            } else {
                lost.extend(io.names().into_iter().flatten());
            }
        }
        names
    }

    /// Is this change there after a crash?
    fn stays(&self, left: Left, change: u64, rng: &mut Rng) -> bool {
        match left {
            Left::Nothing => false,
            Left::All => true,
            Left::Some(percent) => rng.chance(percent),
            Left::Newest(count) => change.saturating_add(count) > self.changes,
        }
    }

    fn pages(&self, file: usize, left: Left, rng: &mut Rng) -> Pages {
        let replayed = &self.files[file];
        let mut pages = replayed.durable.clone();
        if replayed.pending.is_empty() || left == Left::Nothing {
            return pages;
        }
        for (change, Pending { io, grows }) in &replayed.pending {
            let mut stays = || self.stays(left, *change, rng);
            match &self.ios[*io] {
                Io::SetLen { len, .. } => {
                    if stays() {
                        let _again = pages.set_len(*len);
                    }
                }
                Io::Write { at, len, pieces, .. } => {
                    let all = matches!(left, Left::All | Left::Newest(_));
                    if *grows && stays() {
                        pages.claim_len(at.saturating_add(*len as u64));
                    }
                    if !all {
                        pieces.iter().for_each(|piece| pages.place_some(piece, SECTOR, &mut stays));
                    } else if stays() {
                        pieces.iter().for_each(|piece| pages.place(piece));
                    }
                }
                Io::Sync { .. }
                | Io::FailedSync { .. }
                | Io::Create { .. }
                | Io::Rename { .. }
                | Io::Remove { .. }
                | Io::SyncDirectory
                | Io::FailedSyncDirectory
                | Io::Mark(_) => {}
            }
        }
        pages.trim();
        pages
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("steps", &self.ios.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Replay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("done", &self.next)
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

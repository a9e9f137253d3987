//! A directory of files in memory that can fail, fill up, and crash.

mod crash;
mod pages;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pages::{Pages, Piece};

pub use crash::{Event, Left, Replay, Trace};

/// A directory of files in memory, for stores whose I/O can be put on one. Clones share it, so that a test can look at it
/// while a store is on it.
///
/// Like a real one it tells what is there from what is durable: the bytes of a file are durable once the *file* is
/// synced, names (made, renamed, removed) once the *directory* is. What a crash leaves is told by the [`Trace`] that it
/// keeps once it is told to [record](Disk::record).
///
/// What is there now, whoever asks, is what was written last: reading never shows what a crash would have lost. That is so after
/// a sync that has failed as well, as on Linux, whose page cache goes on showing pages that never got to the disk.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Inner>>);

/// A file on a [`Disk`]. Clones are the same file; it can be used when it is renamed or removed, too.
#[derive(Clone)]
pub struct DiskFile {
    disk: Disk,
    file: usize,
}

/// Makes the I/O with a number fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Which: see [`Disk::count`].
    pub at: u64,
    /// Do all those after it fail as well?
    pub for_good: bool,
    /// How. [`io::ErrorKind::StorageFull`] is a full disk: only what needs space fails, from this I/O on or the
    /// next one that does.
    pub kind: io::ErrorKind,
}

/// What kind of I/O something was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IoKind {
    /// Bytes into a file.
    Write,
    /// Another length of a file.
    SetLen,
    /// A file made durable.
    Sync,
    /// A file made.
    Create,
    /// A file renamed.
    Rename,
    /// A file removed.
    Remove,
    /// The directory made durable.
    SyncDirectory,
}

impl IoKind {
    /// Does it promise that something is durable?
    #[must_use]
    pub const fn is_sync(self) -> bool {
        matches!(self, Self::Sync | Self::SyncDirectory)
    }

    /// Does it change a name?
    pub(in crate::conformance) const fn is_of_names(self) -> bool {
        matches!(self, Self::Create | Self::Rename | Self::Remove)
    }

    /// Can a full disk refuse it?
    #[must_use]
    pub const fn needs_space(self) -> bool {
        matches!(self, Self::Write | Self::SetLen | Self::Create)
    }
}

/// An I/O that was made to fail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failed {
    /// Its number.
    pub at: u64,
    /// What it was.
    pub kind: IoKind,
    /// Which file it was about, by the name that it had at first; empty for the directory.
    pub name: String,
}

#[derive(Default)]
struct Inner {
    names: BTreeMap<Arc<str>, usize>,
    /// Those that have no name any more as well.
    files: Vec<File>,
    trace: Option<Trace>,
    count: u64,
    fault: Option<Fault>,
    failed: Option<Failed>,
    /// So many bytes are all that there is room for.
    room: Option<u64>,
    frozen: bool,
}

struct File {
    pages: Pages,
    name: Arc<str>,
}

/// One thing done, as a trace keeps it.
#[derive(Clone)]
enum Io {
    Write {
        file: usize,
        at: u64,
        len: usize,
        pieces: Vec<Piece>,
    },
    SetLen {
        file: usize,
        len: u64,
    },
    Sync {
        file: usize,
    },
    /// Of what was not durable yet some may be now, and no later sync changes that.
    FailedSync {
        file: usize,
    },
    Create {
        name: Arc<str>,
        file: usize,
    },
    Rename {
        from: Arc<str>,
        to: Arc<str>,
        file: usize,
    },
    Remove {
        name: Arc<str>,
    },
    SyncDirectory,
    FailedSyncDirectory,
    Mark(u64),
}

fn gone() -> io::Error {
    io::Error::other("the disk is gone: its process has died")
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no file {name}"))
}

/// What a store does.
impl Disk {
    /// An empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a file, or empties the one that has this name.
    ///
    /// # Errors
    /// If it is made to fail.
    pub fn create(&self, name: &str) -> io::Result<DiskFile> {
        let mut inner = self.lock();
        if let Some(file) = inner.names.get(name).copied() {
            inner.set_len(file, 0)?;
            return Ok(DiskFile { disk: self.clone(), file });
        }
        if let Some(error) = inner.begin(IoKind::Create, name)? {
            return Err(error);
        }
        if inner.room.is_some_and(|room| inner.used() >= room) {
            return Err(inner.full(IoKind::Create, name));
        }
        let (name, file): (Arc<str>, usize) = (name.into(), inner.files.len());
        inner.files.push(File { pages: Pages::default(), name: name.clone() });
        inner.names.insert(name.clone(), file);
        inner.record(|_| Io::Create { name, file });
        Ok(DiskFile { disk: self.clone(), file })
    }

    /// Opens a file, to read and to write.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is none of this name.
    pub fn open(&self, name: &str) -> io::Result<DiskFile> {
        let inner = self.lock();
        inner.alive()?;
        let file = inner.names.get(name).copied().ok_or_else(|| not_found(name))?;
        Ok(DiskFile { disk: self.clone(), file })
    }

    /// Gives a file another name, atomically, and takes that from whichever file has it.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is none; or if it is made to fail.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.lock();
        if let Some(error) = inner.begin(IoKind::Rename, from)? {
            return Err(error);
        }
        let file = inner.names.remove(from).ok_or_else(|| not_found(from))?;
        inner.names.insert(to.into(), file);
        inner.record(|_| Io::Rename { from: from.into(), to: to.into(), file });
        Ok(())
    }

    /// Removes a name. The bytes stay for those who have the file open.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is none; or if it is made to fail.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.lock();
        if let Some(error) = inner.begin(IoKind::Remove, name)? {
            return Err(error);
        }
        inner.names.remove(name).ok_or_else(|| not_found(name))?;
        inner.record(|_| Io::Remove { name: name.into() });
        Ok(())
    }

    /// The names in it, in order.
    ///
    /// # Errors
    /// If it is frozen.
    pub fn list(&self) -> io::Result<Vec<String>> {
        let inner = self.lock();
        inner.alive()?;
        Ok(inner.names.keys().map(ToString::to_string).collect())
    }

    /// Makes all names durable: those that were made, changed or removed until now.
    ///
    /// # Errors
    /// If it is made to fail. What was not durable before may be now or not, and no later sync makes it so.
    pub fn sync(&self) -> io::Result<()> {
        let mut inner = self.lock();
        if let Some(error) = inner.begin(IoKind::SyncDirectory, "")? {
            inner.record(|_| Io::FailedSyncDirectory);
            return Err(error);
        }
        inner.record(|_| Io::SyncDirectory);
        Ok(())
    }
}

/// What a store does with a file.
impl DiskFile {
    /// How many bytes it has.
    ///
    /// # Errors
    /// If the disk is frozen.
    pub fn len(&self) -> io::Result<u64> {
        let inner = self.disk.lock();
        inner.alive()?;
        Ok(inner.files[self.file].pages.len())
    }

    /// Has it none?
    ///
    /// # Errors
    /// If the disk is frozen.
    pub fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Fills `out` from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if there is less; or if the disk is frozen.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.disk.lock();
        inner.alive()?;
        inner.files[self.file].pages.read(offset, out)
    }

    /// Writes there, beyond the end as well: what lies between are zeros then.
    ///
    /// # Errors
    /// If it is made to fail, or there is no room. A part of it may be there.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.lock();
        let name = inner.files[self.file].name.clone();
        if let Some(error) = inner.begin(IoKind::Write, &name)? {
            // A part of it got there. On a full disk that is what lies within the file, and half of what doesn't.
            inner.write(self.file, offset, &data[..data.len() / 2])?;
            return Err(error);
        }
        let end = offset.saturating_add(data.len() as u64);
        let grows = end.saturating_sub(inner.files[self.file].pages.len());
        if let Some(room) = inner.room.filter(|_| grows > 0) {
            let missing = inner.used().saturating_add(grows).saturating_sub(room);
            if missing > 0 {
                let fits = (data.len() as u64).saturating_sub(missing) as usize;
                inner.write(self.file, offset, &data[..fits])?;
                return Err(inner.full(IoKind::Write, &name));
            }
        }
        inner.write(self.file, offset, data)
    }

    /// Cuts it off there, or adds zeros.
    ///
    /// # Errors
    /// If it is made to fail, or there is no room.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.lock().set_len(self.file, len)
    }

    /// Makes its bytes and its length durable. Not its name: see [`Disk::sync`].
    ///
    /// # Errors
    /// If it is made to fail. What was not durable before may be now or not, and no later sync makes it so.
    pub fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.lock();
        let (file, name) = (self.file, inner.files[self.file].name.clone());
        if let Some(error) = inner.begin(IoKind::Sync, &name)? {
            inner.record(|_| Io::FailedSync { file });
            return Err(error);
        }
        inner.record(|_| Io::Sync { file });
        Ok(())
    }
}

/// What a test does.
impl Disk {
    /// From now on what is done is kept, for [`Disk::take_trace`]. All that is there counts as durable.
    pub fn record(&self) {
        let mut inner = self.lock();
        inner.trace = Some(Trace::starting_with(&inner.names, &inner.files));
    }

    /// What was done since [`Disk::record`]. Nothing more is kept.
    pub fn take_trace(&self) -> Trace {
        self.lock().trace.take().unwrap_or_default()
    }

    /// Puts a mark into the trace, which a [`Replay`] shows when it gets there: such as that so much was acknowledged.
    pub fn mark(&self, mark: u64) {
        let mut inner = self.lock();
        if !inner.frozen {
            inner.record(|_| Io::Mark(mark));
        }
    }

    /// How many I/Os were tried that would change something, from 0: the next one has this number. Reading is not counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.lock().count
    }

    /// Makes an I/O fail, or none any more.
    pub fn set_fault(&self, fault: Option<Fault>) {
        let mut inner = self.lock();
        inner.fault = fault;
        inner.failed = None;
    }

    /// The first I/O that has failed since [`Disk::set_fault`] or [`Disk::set_room`].
    #[must_use]
    pub fn failed(&self) -> Option<Failed> {
        self.lock().failed.clone()
    }

    /// There is room for so many bytes in all, or for any number. What is there stays, even if it is more.
    pub fn set_room(&self, bytes: Option<u64>) {
        let mut inner = self.lock();
        inner.room = bytes;
        inner.failed = None;
    }

    /// How many bytes its files have. Those without a name count no more.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    /// The process has died: from now on everything fails, and nothing changes.
    pub fn freeze(&self) {
        self.lock().frozen = true;
    }

    /// A disk with the same on it as there is here now, which another process would find if this one were killed.
    #[must_use]
    pub fn copy(&self) -> Self {
        let inner = self.lock();
        Self::of(inner.names.iter().map(|(name, file)| (name.clone(), inner.files[*file].pages.clone())))
    }

    /// Changes a byte behind everyone's back, as a disk does that rots. Nothing happens beyond the end of the file.
    pub fn flip(&self, name: &str, offset: u64, mask: u8) {
        let mut inner = self.lock();
        if let Some(file) = inner.names.get(name).copied() {
            let pages = &mut inner.files[file].pages;
            let mut byte = [0];
            if pages.read(offset, &mut byte).is_ok() {
                let _there = pages.write(offset, &[byte[0] ^ mask]);
            }
        }
    }

    /// One on which all this was done, and goes on being recorded.
    fn going_on(names: &BTreeMap<Arc<str>, usize>, files: impl Iterator<Item = Pages>, trace: Trace) -> Self {
        let mut files: Vec<File> = files.map(|pages| File { pages, name: "".into() }).collect();
        for (name, file) in names {
            files[*file].name = name.clone();
        }
        let inner = Inner { names: names.clone(), files, trace: Some(trace), ..Inner::default() };
        Self(Arc::new(Mutex::new(inner)))
    }

    fn of(files: impl Iterator<Item = (Arc<str>, Pages)>) -> Self {
        let mut inner = Inner::default();
        for (name, pages) in files {
            inner.names.insert(name.clone(), inner.files.len());
            inner.files.push(File { pages, name });
        }
        Self(Arc::new(Mutex::new(inner)))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn alive(&self) -> io::Result<()> {
        if self.frozen { Err(gone()) } else { Ok(()) }
    }

    /// Counts an I/O. The error, if it is one that is to fail, is for the caller to return, once it has left behind what a
    /// failure leaves.
    fn begin(&mut self, kind: IoKind, name: &str) -> io::Result<Option<io::Error>> {
        self.alive()?;
        let number = self.count;
        self.count += 1;
        let Some(fault) = self.fault else { return Ok(None) };
        let full = fault.kind == io::ErrorKind::StorageFull;
        if number < fault.at || (full && !kind.needs_space()) {
            return Ok(None);
        }
        let first = self.failed.is_none();
        let now = if full { first || fault.for_good } else { number == fault.at || fault.for_good };
        if !now {
            return Ok(None);
        }
        self.failed.get_or_insert_with(|| Failed { at: number, kind, name: name.to_owned() });
        Ok(Some(io::Error::new(fault.kind, format!("injected: {kind:?} {name}, I/O {number}"))))
    }

    fn full(&mut self, kind: IoKind, name: &str) -> io::Error {
        let at = self.count.saturating_sub(1);
        self.failed.get_or_insert_with(|| Failed { at, kind, name: name.to_owned() });
        io::Error::new(io::ErrorKind::StorageFull, format!("no room: {kind:?} {name}, I/O {at}"))
    }

    fn used(&self) -> u64 {
        self.names.values().map(|file| self.files[*file].pages.len()).sum()
    }

    fn write(&mut self, file: usize, at: u64, data: &[u8]) -> io::Result<()> {
        if !data.is_empty() {
            self.files[file].pages.write(at, data)?;
            self.record(|files| {
                let pieces = files[file].pages.pieces(at, data);
                Io::Write { file, at, len: data.len(), pieces }
            });
        }
        Ok(())
    }

    fn set_len(&mut self, file: usize, len: u64) -> io::Result<()> {
        let name = self.files[file].name.clone();
        let there = self.files[file].pages.len();
        // Making a file shorter needs no space.
        let kind = IoKind::SetLen;
        let full = |fault: &Fault| fault.kind == io::ErrorKind::StorageFull;
        if len <= there && self.fault.as_ref().is_some_and(full) {
            self.alive()?;
            self.count += 1;
        } else if let Some(error) = self.begin(kind, &name)? {
            return Err(error);
        }
        if len > there && self.room.is_some_and(|room| self.used().saturating_add(len - there) > room) {
            return Err(self.full(kind, &name));
        }
        self.files[file].pages.set_len(len)?;
        self.record(|_| Io::SetLen { file, len });
        Ok(())
    }

    fn record(&mut self, io: impl FnOnce(&[File]) -> Io) {
        if let Some(trace) = &mut self.trace {
            trace.push(io(&self.files));
        }
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        let mut map = f.debug_map();
        for (name, file) in &inner.names {
            map.entry(name, &inner.files[*file].pages.len());
        }
        map.finish()
    }
}

impl fmt::Debug for DiskFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.disk.lock();
        f.debug_struct("DiskFile").field("name", &inner.files[self.file].name).finish_non_exhaustive()
    }
}

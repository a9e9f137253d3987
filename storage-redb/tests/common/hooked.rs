//! A directory that calls a test before it does anything.

use std::{any::Any, fmt, io, sync::Arc};

use quorate_storage_redb::Directory;
use redb::StorageBackend;

use super::on_disk::OnDisk;

/// Called with what is to be done and to which file; an error is what comes of it.
pub type Hook = Arc<dyn Fn(&str, &str) -> io::Result<()> + Send + Sync>;

pub struct Hooked {
    disk: OnDisk,
    hook: Hook,
}

impl Hooked {
    pub fn new(disk: OnDisk, hook: impl Fn(&str, &str) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { disk, hook: Arc::new(hook) }
    }

    fn file(&self, name: &str, file: Box<dyn StorageBackend>) -> Box<dyn StorageBackend> {
        Box::new(HookedFile { name: name.to_owned(), file, hook: Arc::clone(&self.hook) })
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hooked").field(&self.disk).finish()
    }
}

impl Directory for Hooked {
    fn lock(&self) -> io::Result<Option<Box<dyn Any + Send>>> {
        (self.hook)("lock", "")?;
        self.disk.lock()
    }
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn StorageBackend>>> {
        (self.hook)("open", name)?;
        Ok(self.disk.open(name)?.map(|file| self.file(name, file)))
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        (self.hook)("create", name)?;
        Ok(self.file(name, self.disk.create(name)?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        (self.hook)("rename", from)?;
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        (self.hook)("remove", name)?;
        self.disk.remove(name)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        (self.hook)("list", "")?;
        self.disk.list()
    }
    fn sync(&self) -> io::Result<()> {
        (self.hook)("sync", "")?;
        self.disk.sync()
    }
}

struct HookedFile {
    name: String,
    file: Box<dyn StorageBackend>,
    hook: Hook,
}

impl fmt::Debug for HookedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HookedFile").field(&self.name).finish()
    }
}

impl StorageBackend for HookedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        (self.hook)("read", &self.name)?;
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        (self.hook)("set_len", &self.name)?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        (self.hook)("sync_data", &self.name)?;
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        (self.hook)("write", &self.name)?;
        self.file.write(offset, data)
    }
}

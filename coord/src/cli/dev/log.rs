//! A node's log file, bounded.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// When a log has grown beyond this, in bytes, it becomes `log.1`, whose place it takes.
const MAX: u64 = 8 << 20;

/// A file that is appended to, with one older file beside it.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
    max: u64,
}

impl Log {
    /// Goes on with the log in `dir`.
    ///
    /// # Errors
    /// If it can't be opened.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        Self::bounded(dir, MAX)
    }

    fn bounded(dir: &Path, max: u64) -> io::Result<Self> {
        let path = dir.join("log");
        let file = OpenOptions::new().append(true).create(true).open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file, bytes, max })
    }

    /// Appends a line, with its end.
    ///
    /// # Errors
    /// If it can't be written.
    pub(crate) fn line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes >= self.max {
            fs::rename(&self.path, self.path.with_extension("1"))?;
            self.file = File::create(&self.path)?;
            self.bytes = 0;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_files_hold_the_newest_lines_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..10 {
            // Opened again and again, as by one start after the other.
            Log::bounded(dir.path(), 20).unwrap().line(format!("line {n}...\n").as_bytes()).unwrap();
        }
        let text = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(text("log"), "line 8...\nline 9...\n");
        assert_eq!(text("log.1"), "line 6...\nline 7...\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}

//! PEM files, read and written; a private key is for its owner only.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _};

use crate::names::NameError;

/// What is wrong with certificates or keys, and in which file.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file can't be read.
    #[error("can't read {path}: {error}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file can't be written.
    #[error("can't write {path}: {error}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// No such thing in the PEM text.
    #[error("{place} holds no {what} in PEM form{detail}")]
    Pem {
        /// The file, or what the text was given as.
        place: String,
        /// What was looked for.
        what: &'static str,
        /// More, if there is more to say.
        detail: String,
    },
    /// A certificate for no node, or for another one.
    #[error("{place}: {error}")]
    Name {
        /// The file, or what the text was given as.
        place: String,
        /// What is wrong.
        error: NameError,
    },
    /// A node's certificate that is good for one side of a connection only. A node is on both sides: it dials, and it is dialled.
    #[error(
        "this node's certificate, or one above it, is not for {missing} (its extended key usage leaves that out), and \
         peers would refuse it: issue one with both serverAuth and clientAuth, or without an extended key usage"
    )]
    Usage {
        /// What it lacks: `serverAuth` or `clientAuth`.
        missing: &'static str,
    },
    /// A key or certificate that can't be used or made.
    #[error("{what}: {why}")]
    Crypto {
        /// What was attempted.
        what: String,
        /// Why it didn't work.
        why: String,
    },
}

impl PkiError {
    pub(super) fn crypto(what: impl Into<String>, why: &impl ToString) -> Self {
        Self::Crypto { what: what.into(), why: why.to_string() }
    }
}

pub(super) fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|error| PkiError::Read { path: path.into(), error })
}

/// Writes a file that anyone may read.
pub(super) fn write_public(path: &Path, text: &str) -> Result<(), PkiError> {
    fs::write(path, text).map_err(|error| PkiError::Write { path: path.into(), error })
}

/// Writes a file for its owner only (mode 0600), from its first byte on.
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), PkiError> {
    let write = || {
        // An old file would keep its old mode.
        match fs::remove_file(path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => {}
        }
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path)?.write_all(text.as_bytes())
    };
    write().map_err(|error| PkiError::Write { path: path.into(), error })
}

pub(super) fn make_dir(dir: &Path) -> Result<(), PkiError> {
    fs::create_dir_all(dir).map_err(|error| PkiError::Write { path: dir.into(), error })
}

/// All certificates in a PEM text; at least one.
pub(super) fn certificates(place: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let missing = |detail| PkiError::Pem { place: place.into(), what: "certificate", detail };
    let found = found.map_err(|err| missing(format!(": {err}")))?;
    if found.is_empty() { Err(missing(String::new())) } else { Ok(found) }
}

/// The first private key in a PEM text.
pub(super) fn private_key(place: &str, pem: &str) -> Result<PrivateKeyDer<'static>, PkiError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|err| PkiError::Pem {
        place: place.into(),
        what: "private key",
        detail: if matches!(err, pem::Error::NoItemsFound) { String::new() } else { format!(": {err}") },
    })
}

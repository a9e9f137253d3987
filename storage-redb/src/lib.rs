//! A durable log, hard state and snapshots for quorate's groups, on [redb](https://docs.rs/redb).
//!
//! [`RedbStore`] implements [`quorate_core::Store`]: a node has one store, however many groups it is a member of. They come and go
//! while it is open, and thousands are cheap: all that are created, recovered or written at once share one transaction
//! (`docs/decisions/0013-groups-come-and-go.md`).
//! [`RedbStore::create`] bootstraps a directory, once; [`RedbStore::open`] opens it ever after.
//!
//! # What it promises
//!
//! - **One [`Write`](quorate_core::Write) is atomic**: all of it or nothing. All that is handed to one `commit`, of
//!   however many groups, is one transaction and, with [`Options::two_phase`] off, about one `fdatasync`.
//! - **What was acknowledged and is then missing or damaged is noticed** before any of it is used, and told by [`Error::Lost`] or
//!   [`Error::Damaged`]: such a node must not go on under its id. Every record has a checksum over its key and value,
//!   redb has one for each page, each block of a snapshot has its own, and a watermark tells when the database as a whole is
//!   older than what was acknowledged. What remains unnoticed is written down in
//!   `docs/decisions/0001-durability-of-a-commit.md`.
//! - **After an error from `commit`, or a failed sync of anything, nothing is written any more**: every later call says
//!   [`Error::Stopped`]. A full disk that a snapshot runs into does no harm but to that snapshot, and a write that does not fit, or is
//!   of a group that is not here, is undone with those beside it and does no harm but to
//!   [its group](quorate_core::Store::refused).
//! - **A group that was removed never comes back**: a record of 33 bytes, its key included, says so for ever.
//! - **Recovery holds no payloads**: it reads the log value by value, checks each, and keeps terms and memberships.
//! - **One process has a directory**, and one cluster and node: another is refused.
//!
//! The tests are those of `quorate_runtime_tokio::conformance`, which any other store can run too, and those in
//! `storage-redb/tests`. `storage-redb/mutants/run` breaks the store in some eighty ways and sees each of them noticed.
//!
//! # Snapshots
//!
//! The log begins later when it is compacted or a snapshot is installed ([`Rebase`](quorate_core::Rebase)); the entries
//! before that are deleted in the transaction of that write, and their pages are used again. A rebase without its
//! snapshot is refused. The bytes are in a file each, beside the database (`docs/decisions/0011-snapshots-are-files.md`): it is
//! written by whoever takes or receives the snapshot while the log goes on, and gets its name when it is whole and durable. A transfer that
//! is cut short goes on where it was. [`Options::keep_snapshots`] says how many are kept; the one that the log rests on always is.
//!
//! # Not running
//!
//! [`Inspection::of`] looks at a directory and leaves it as it is. [`ArchiveReader`] and [`ArchiveWriter`] read and write a snapshot as a
//! file of its own, as a backup is; [`RedbStore::restore`] makes a node of a new cluster from one. [`RedbStore::force_single`] is for
//! a cluster whose quorum is lost. [`RedbStore::reclaim`] makes a file short that was long.
//!
//! # What it assumes
//!
//! That `fdatasync` returns when the data is on the medium, or fails; that a sector of 512 bytes is written whole or not
//! at all; that renaming a file is atomic; that nobody else writes into the directory. After an `fdatasync` that failed, Linux may show
//! pages that are not on the disk: restart the machine, or better replace the node, before it is trusted again.
//!
//! # The files
//!
//! | file | what |
//! | --- | --- |
//! | `quorate.store` | 16 KiB of our own: the identity (cluster, node, format version) and two slots for the watermark. redb's file follows: they are one file so that one sync covers both |
//! | `quorate.lock` | empty; locked while the store is open |
//! | `GROUP-INDEX-TERM.snapshot` | a snapshot, the numbers in hexadecimal |
//! | `….taking`, `….receiving` | one that is not whole yet |
//!
//! Formats have versions: one that this release does not know is refused, with those that it knows. A store of version 1, which had no
//! snapshots, or 2, from which no group was ever removed, is brought up to version 3 when it is opened; an earlier release then refuses it.

mod archive;
mod directory;
mod error;
mod front;
mod groups;
mod held;
mod inspect;
mod latch;
mod medium;
mod offline;
mod open;
mod options;
mod overlay;
mod reader;
mod reclaim;
mod record;
mod recovery;
mod snapshots;
mod store;
mod writer;

pub use archive::{ArchiveHeader, ArchiveReader, ArchiveWriter};
pub use directory::Directory;
pub use error::{Damage, Error, Fact, Lost, Misfit};
pub use inspect::{GroupInspection, Inspection, Inspector, SnapshotInspection};
pub use offline::Forced;
pub use options::{Identity, Options};
pub use reader::RedbReader;
pub use reclaim::Reclaimed;
pub use snapshots::{RedbSnapshotReader, RedbSnapshotWriter, RedbSnapshots};
pub use store::RedbStore;

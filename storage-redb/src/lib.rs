//! A durable log and hard state for quorate's groups, in one file on [redb](https://docs.rs/redb).
//!
//! [`RedbStore`] implements [`quorate_core::Store`]: a node has one store, however many groups it is a member of.
//! [`RedbStore::create`] bootstraps a directory, once; [`RedbStore::open`] opens it ever after.
//!
//! # What it promises
//!
//! - **One [`Write`](quorate_core::Write) is atomic**: all of it or nothing. All that is handed to one `commit`, of
//!   however many groups, is one transaction and, with [`Options::two_phase`] off, about one `fdatasync`.
//! - **What was acknowledged and is then missing or damaged is noticed**, and told by [`Error::Lost`] or
//!   [`Error::Damaged`]: such a node must not go on under its id. Every record has a checksum over its key and value,
//!   redb has one for each page, and a watermark tells when the database as a whole is older than what was
//!   acknowledged. What remains unnoticed is written down in `docs/decisions/0001-durability-of-a-commit.md`.
//! - **After an error from `commit` nothing is written any more**: every later call says [`Error::Stopped`].
//! - **Recovery holds no payloads**: it reads the log value by value, checks each, and keeps terms and memberships.
//!
//! # Snapshots
//!
//! The log begins later when it is compacted or a snapshot is installed ([`Rebase`](quorate_core::Rebase)); the entries
//! before that are deleted in the transaction of that write, and their pages are used again. The bytes of
//! snapshots are not in here, so all that this store knows is that there is one at the log's base or after it:
//! [`Store::recover`](quorate_core::Store::recover) names the base as the newest snapshot, and as what is applied.
//! Whoever keeps the bytes knows better, for it had published the snapshot before the core heard of it: before it starts
//! the core, it sets `Recovered::snapshot` and `Recovered::applied` to the newest one that it has, at the base or after
//! it. If it has none, this replica has lost what it had acknowledged.
//!
//! # What it assumes
//!
//! That `fdatasync` returns when the data is on the medium, or fails; that a sector of 512 bytes is written whole or not
//! at all; that nobody else writes into the file. After an `fdatasync` that failed, Linux may show pages that
//! are not on the disk: restart the machine, or better replace the node, before it is trusted again.
//!
//! # The file
//!
//! `quorate.store` begins with 16 KiB of our own: the identity (cluster, node, format version) and two slots for the
//! watermark. redb's file follows. They are one file so that one sync covers both. Formats have versions:
//! one that this release does not know is refused, with those that it knows.

mod error;
mod front;
mod medium;
mod open;
mod options;
mod reader;
mod record;
mod recovery;
mod store;
mod writer;

pub use error::{Damage, Error, Fact, Lost, Misfit};
pub use options::{Identity, Options};
pub use reader::RedbReader;
pub use store::RedbStore;

//! What can go wrong, told so that an operator knows what to do.

use std::{fmt, io, path::PathBuf};

use quorate_core::{GroupId, HardState, Incarnation, Index, LogId, NodeId, Term, WriteSeq};

use crate::Identity;

/// What can go wrong with a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is nothing to open.
    #[error("{} holds no store: bootstrap it first", dir.display())]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// There is a store already, so it is not bootstrapped again: that would forget its log and its votes.
    #[error("{} already holds a store{}: open it, or bootstrap another directory", dir.display(), Of(*.identity))]
    AlreadyBootstrapped {
        /// The directory.
        dir: PathBuf,
        /// Whose store it is, if that can be read.
        identity: Option<Identity>,
    },
    /// There are snapshots, but no store: somebody has removed its file. A new one would forget whom it had voted for.
    #[error("{} holds snapshots, but no store: its file was removed. Bootstrap another directory, or remove them too if they are of no use", dir.display())]
    SnapshotsAlone {
        /// The directory.
        dir: PathBuf,
    },
    /// The store is of another cluster.
    #[error("this store is of cluster {found:032x}, not of cluster {expected:032x}: wrong directory?")]
    WrongCluster {
        /// The cluster asked for.
        expected: u128,
        /// The cluster found.
        found: u128,
    },
    /// The store is of another node.
    #[error("this store is of node {found}, not of node {expected}: wrong directory?")]
    WrongNode {
        /// The node asked for.
        expected: NodeId,
        /// The node found.
        found: NodeId,
    },
    /// Something in the file is of a format that this version does not know.
    #[error("unknown version {found} of {what}; this release knows {known}")]
    UnknownVersion {
        /// Of what.
        what: &'static str,
        /// The version found.
        found: u32,
        /// The versions known.
        known: &'static str,
    },
    /// A new cluster needs an id that was never used.
    #[error(
        "cluster {0:032x} is there already: its nodes may live and remember otherwise. Choose an id that was never used"
    )]
    SameCluster(u128),
    /// Another process, or another part of this one, has it open.
    #[error("the store is in use: another process has it open, or this one has it open already")]
    InUse,
    /// No such group in this store.
    #[error("group {0} is not in this store")]
    UnknownGroup(GroupId),
    /// The group is there already.
    #[error("group {0} is in this store already")]
    GroupExists(GroupId),
    /// The group was here, and was removed: what its replica had promised is forgotten, so it never comes back.
    #[error(
        "group {0} was removed from this store, and what its replica had promised with it: it is not taken again. Let another node \
         have it, or this one under a new id"
    )]
    GroupRemoved(GroupId),
    /// Something that was written is missing or not what was written.
    #[error(transparent)]
    Damaged(#[from] Box<Damage>),
    /// The newest commit was acknowledged, and the database has forgotten it.
    #[error(transparent)]
    Lost(#[from] Box<Lost>),
    /// A write that does not fit onto what is there: a fault of the caller.
    #[error("write {seq} of group {group} was refused: {why}")]
    BadWrite {
        /// Its group.
        group: GroupId,
        /// Its number.
        seq: WriteSeq,
        /// What was wrong.
        why: Misfit,
    },
    /// The file system or the disk.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The database, for a reason that is neither damage nor I/O.
    #[error("{doing}: {source}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        source: Box<redb::Error>,
    },
    /// A snapshot is not what was written, or no snapshot at all.
    #[error("{file} can't be used: {what}{}", At(*.offset))]
    BadSnapshot {
        /// Which file.
        file: String,
        /// Near which byte of what it holds, if that is known.
        offset: Option<u64>,
        /// What is wrong.
        what: &'static str,
    },
    /// The file of a snapshot can't be written or read. Of a disk that is full the store itself takes no harm.
    #[error("{doing} {file}: {source}")]
    SnapshotIo {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        file: String,
        /// What it said.
        source: io::Error,
    },
    /// Another snapshot of the group is being taken, or received.
    #[error("another snapshot of group {0} is being staged: wait until it is done")]
    SnapshotBusy(GroupId),
    /// A snapshot that newer ones make useless.
    #[error("a snapshot of group {group} at index {found} is of no use: there is one at {newest}")]
    SnapshotNotNewer {
        /// Of which group.
        group: GroupId,
        /// The newest one there is.
        newest: Index,
        /// The one that should be staged.
        found: Index,
    },
    /// What was received is not what was announced.
    #[error(
        "the snapshot of group {group} at {last} is not the one that was announced: {found} bytes came, {expected} were expected, \
         or their checksum differs. What was staged of it is removed"
    )]
    SnapshotMismatch {
        /// Of which group.
        group: GroupId,
        /// At which entry.
        last: LogId,
        /// How many bytes it has.
        expected: u64,
        /// How many came.
        found: u64,
    },
    /// The writer of a snapshot was used after it had failed.
    #[error("staging a snapshot of group {0} has failed before: begin again")]
    SnapshotAbandoned(GroupId),
    /// An earlier commit failed. What it left on the disk is not known, so nothing is written after it.
    #[error(
        "the store was stopped by an earlier error ({first}), so that nothing is written after it. Restart the node when \
         the cause is gone; if a sync has failed, restart the machine too, or replace the node under a new id"
    )]
    Stopped {
        /// The first error, in words.
        first: String,
    },
    /// The store that this reader belongs to is closed.
    #[error("the store is closed")]
    Closed,
}

/// Why a write does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Misfit {
    /// It was made in another life of the group.
    #[error("it is of incarnation {found}, the group's is {current}")]
    Incarnation {
        /// The group's.
        current: Incarnation,
        /// The write's.
        found: Incarnation,
    },
    /// Nobody has recovered the group since the store was opened.
    #[error("the group was not recovered since the store was opened")]
    NotRecovered,
    /// A write was left out, or came twice.
    #[error("write {expected} is next")]
    Order {
        /// The number that is next.
        expected: WriteSeq,
    },
    /// Entries that don't follow the last one.
    #[error("its entries begin with {found}, the log ends with {last}")]
    Gap {
        /// The end of the log.
        last: LogId,
        /// The first entry of the run.
        found: LogId,
    },
    /// It would remove what a snapshot has replaced.
    #[error("it truncates at {at}, but the log begins after {base}")]
    BelowBase {
        /// Where it truncates.
        at: Index,
        /// Where the log begins.
        base: LogId,
    },
    /// It lets the log begin where it has begun already, or with an entry that it does not hold.
    #[error(
        "it lets the log begin after {found}; it begins after {base}, and must hold the entry unless a snapshot is installed"
    )]
    Base {
        /// Where the log begins.
        base: LogId,
        /// Where it should begin.
        found: LogId,
    },
    /// It lets the log begin after an entry, but no snapshot replaces what is before.
    #[error("it lets the log begin after {0}, but no published snapshot replaces what is before")]
    NoSnapshot(LogId),
    /// It would make the term go back, or change a vote that was given.
    #[error("its term or vote takes back what was promised in term {term}", term = .current.term)]
    HardState {
        /// What was promised.
        current: HardState,
    },
}

/// Something that was written is missing or is not what was written.
///
/// A damaged record is never skipped: what it held may have been acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Which file.
    pub file: String,
    /// Of which group, if of one.
    pub group: Option<GroupId>,
    /// At which index, if an entry.
    pub index: Option<Index>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is damaged", self.file)?;
        if let Some(group) = self.group {
            write!(f, " in group {group}")?;
        }
        if let Some(index) = self.index {
            write!(f, " at index {index}")?;
        }
        write!(f, ": {}. {ADVICE}", self.what)
    }
}

impl std::error::Error for Damage {}

/// The database is older than what was acknowledged, as after an unclean stop when its newest commit is damaged and
/// it falls back to the one before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lost {
    /// Which file.
    pub file: String,
    /// The newest commit that was acknowledged.
    pub acknowledged: u64,
    /// The newest commit that is there.
    pub found: u64,
    /// What the acknowledged commit had made durable, by group.
    pub facts: Vec<Fact>,
}

/// What is durable of a group, in short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fact {
    /// Which group.
    pub group: GroupId,
    /// In which of its lives.
    pub incarnation: Incarnation,
    /// Its term and vote.
    pub hard_state: HardState,
    /// The end of its log.
    pub last: LogId,
    /// Was it removed? Then there is nothing else to be said of it.
    pub removed: bool,
}

impl Fact {
    /// That a group was removed.
    pub(crate) const fn removed(group: GroupId) -> Self {
        let hard_state = HardState { term: Term(0), vote: None };
        Self { group, incarnation: Incarnation(0), hard_state, last: LogId::ZERO, removed: true }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, acknowledged, found, facts } = self;
        write!(f, "{file} has lost what was acknowledged: commit {acknowledged} is missing or changed, ")?;
        write!(f, "the newest one there is {found}")?;
        for fact in facts {
            if fact.removed {
                write!(f, "; group {} was removed", fact.group)?;
                continue;
            }
            write!(
                f,
                "; group {} had its log up to {} in term {}",
                fact.group, fact.last, fact.hard_state.term
            )?;
            if let Some(vote) = fact.hard_state.vote {
                write!(f, " with a vote for node {vote}")?;
            }
        }
        write!(f, ". {ADVICE}")
    }
}

impl std::error::Error for Lost {}

const ADVICE: &str = "This node must neither vote nor acknowledge again under its id: \
    remove it from the cluster, bootstrap an empty directory, and let it join under a new id";

struct Of(Option<Identity>);

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |identity| write!(f, " ({identity})"))
    }
}

struct At(Option<u64>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |offset| write!(f, " (at byte {offset} of what it holds)"))
    }
}

/// An error about the file of a snapshot.
pub(crate) fn io_damage(file: &str, doing: &'static str, source: io::Error) -> Error {
    // Cut while it was read.
    if source.kind() == io::ErrorKind::UnexpectedEof {
        return Error::BadSnapshot { file: file.to_owned(), offset: None, what: "it is cut short" };
    }
    Error::SnapshotIo { doing, file: file.to_owned(), source }
}

/// Turns what redb says into what it means here. redb says `Corrupted` for damage, also as an I/O error of kind
/// `InvalidData` when the file is none of its own at all.
pub(crate) fn from_redb(file: &str, doing: &'static str, error: impl Into<redb::Error>) -> Error {
    let damage = |what: String| {
        Error::from(Box::new(Damage {
            file: file.to_owned(),
            group: None,
            index: None,
            what: format!("{doing}: {what}"),
        }))
    };
    match error.into() {
        redb::Error::DatabaseAlreadyOpen => Error::InUse,
        redb::Error::Corrupted(what) => damage(what),
        // No store was ever written in an older format of redb's.
        redb::Error::UpgradeRequired(version) => {
            damage(format!("it says that it is in format {version} of redb"))
        }
        // The second is a page number that points beyond the end of the file.
        redb::Error::Io(source)
            if matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            damage(source.to_string())
        }
        redb::Error::Io(source) => Error::Io { doing, source },
        missing @ (redb::Error::TableDoesNotExist(_) | redb::Error::TableTypeMismatch { .. }) => {
            damage(missing.to_string())
        }
        source => Error::Database { doing, source: Box::new(source) },
    }
}

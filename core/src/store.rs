//! What a driver brings: somewhere durable. The protocol never calls it.

use alloc::vec::Vec;

use crate::{GroupId, HardState, Incarnation, Index, Load, Loaded, LogId, Membership, Snapshot, Term, Write};

/// Durable state of one or more groups.
///
/// A store is owned by one thread that writes; [`Store::reader`] and [`Store::snapshots`] give others a view.
///
/// Groups come and go while it is open: [`Store::create`], [`Store::groups`], [`Store::remove`]. A group that was removed never comes
/// back: its replica has forgotten its votes and what it had acknowledged, and would promise otherwise under the same name.
pub trait Store: Send + 'static {
    /// What can go wrong. After an error from [`Store::commit`] the store is never written again.
    type Error: core::error::Error + Send + Sync + 'static;
    /// Reads the log beside the writer.
    type Reader: LogReader<Error = Self::Error>;
    /// Keeps the bytes of snapshots.
    type Snapshots: Snapshots<Error = Self::Error>;

    /// The groups that are here, in order: created, and not removed.
    ///
    /// # Errors
    /// If it can't be told.
    fn groups(&self) -> Result<Vec<GroupId>, Self::Error>;

    /// A group begins: with this membership, an empty log, no vote. It is durable when this returns; whatever interrupts this, it is
    /// either here as a whole or not at all. It takes writes once it is recovered.
    ///
    /// # Errors
    /// If the group is here already, or was removed here; nothing has changed then, and the store goes on. After another error as of
    /// [`Store::commit`].
    fn create(&mut self, group: GroupId, membership: &Membership) -> Result<(), Self::Error>;

    /// As [`Store::create`] of each, in order; a store that can, does it in one go, so that many cost little more than one. By default
    /// one by one.
    ///
    /// # Errors
    /// As [`Store::create`]: of the first that can't be. Those before it may have been created, those after it are not.
    fn create_many(&mut self, groups: &[(GroupId, Membership)]) -> Result<(), Self::Error> {
        groups.iter().try_for_each(|(group, membership)| self.create(*group, membership))
    }

    /// A group ends: its log, its votes, its snapshots, and what is staged of any are gone, and their space is used again in time. Whatever
    /// interrupts this, all of it is here or none. It is durable when this returns: what remains is the knowledge that it was
    /// here, so that it never is again.
    ///
    /// Nothing of the group can be reached after that: writes, also those that were minted before, recovery, loads, and
    /// snapshots are refused, and a [`SnapshotWriter`] that is in the middle of one can't go on. But who has a
    /// [`SnapshotReader`] can read it to its end.
    ///
    /// # Errors
    /// If the group is not here; nothing has changed then, and the store goes on. After another error as of [`Store::commit`].
    fn remove(&mut self, group: GroupId) -> Result<(), Self::Error>;

    /// What is durable of `group`, without its payloads, in a new incarnation whose number is durable before
    /// this returns.
    ///
    /// [`Recovered::snapshot`] is the newest snapshot that is published and whose entry is in the log or is its base, and
    /// [`Recovered::applied`] is its index: whoever starts from that puts the snapshot's bytes into the state machine first.
    ///
    /// # Errors
    /// If the group does not exist, or anything in it is damaged or missing: also if the log begins after an entry and
    /// there is no snapshot at it or later.
    fn recover(&mut self, group: GroupId) -> Result<Recovered, Self::Error>;

    /// As [`Store::recover`] of each, in order; a store that can, makes all the new incarnations durable in one go, so that ten thousand
    /// groups start with one sync. By default one by one.
    ///
    /// # Errors
    /// As [`Store::recover`]: of the first that can't be. None counts as recovered then, and each may have spent an incarnation.
    fn recover_many(&mut self, groups: &[GroupId]) -> Result<Vec<Recovered>, Self::Error> {
        groups.iter().map(|group| self.recover(*group)).collect()
    }

    /// Makes all the writes durable, of however many groups, in order, each atomically: in one transaction if it can. When it returns, their
    /// receipts may be handed in. Whatever interrupts this, a write is there only if all those before it in `writes` are.
    ///
    /// A [`Rebase`](crate::Rebase) is refused unless its snapshot is published: for a compaction one at its entry or
    /// later that is in the log, for an installation the very one. So nothing is discarded that no snapshot replaces.
    ///
    /// Refused is also what does not fit what is there, and what no core writes: a write of another incarnation than the
    /// newest, or that is not the next one in it; a term that goes back, or another vote in the same term; entries that leave a
    /// gap, or whose term is before the last one's; a truncation at the base or before it; a log that would begin where
    /// it begins already, or before, or be compacted to an entry that it does not hold. Nothing of such a write is left, nor of those
    /// after it.
    ///
    /// # Errors
    /// If any of it may not be durable, or does not fit. No receipt may be handed in then. After an I/O error all that
    /// follows is refused, recovery too: nobody knows what is on the disk. For an error that is the fault of one group
    /// alone see [`Store::refused`].
    fn commit(&mut self, writes: &[Write]) -> Result<(), Self::Error>;

    /// Whose write was refused, if `error` is of a commit of which nothing was written *and* the store goes on as if it had not been
    /// called: the writes of that group did not fit, or there is no such group (any more). One group's fault, or a write that was
    /// still queued for one that was removed, then stops no other: its writes are taken out, their receipts are never handed in, and the
    /// others' are committed again. `None`, which is the default, says that the store has stopped.
    fn refused(error: &Self::Error) -> Option<GroupId> {
        let _ = error;
        None
    }

    /// There is nothing to write for a while: a store that leaves something for its next commit to make durable, such as
    /// what guards the last one, does so now. Does nothing by default.
    ///
    /// # Errors
    /// As [`Store::commit`].
    fn settle(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    /// A view of the log for another thread.
    fn reader(&self) -> Self::Reader;

    /// The bytes of snapshots, for other threads: neither staging nor reading one holds up a commit.
    fn snapshots(&self) -> Self::Snapshots;
}

/// Reads entries while another thread writes.
pub trait LogReader: Clone + Send + 'static {
    /// What can go wrong.
    type Error: core::error::Error + Send + Sync + 'static;

    /// The entries that `load` asks for; it may stop short, but not before the first. None at all if the log has been
    /// truncated below them since: nobody waits for them then.
    ///
    /// # Errors
    /// If they can't be read, or are damaged.
    fn load(&self, group: GroupId, load: &Load) -> Result<Loaded, Self::Error>;
}

/// What a store found when it was opened.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Recovered {
    /// The number of this life of the node, never used before.
    pub incarnation: Incarnation,
    /// Term and vote.
    pub hard_state: HardState,
    /// Where the log begins: the last entry that was compacted away, or [`LogId::ZERO`].
    pub base: LogId,
    /// The membership in force at `base`.
    pub base_membership: Membership,
    /// The newest snapshot, at `base` or after it; `None` only if nothing was compacted.
    pub snapshot: Option<Snapshot>,
    /// For every term in the log, in order, the first index that has it.
    pub terms: Vec<TermStart>,
    /// The last index in the log, or `base`'s.
    pub last: Index,
    /// The memberships in the log above `base`, in order.
    pub memberships: Vec<(Index, Membership)>,
    /// What the state machine holds already: what it has applied durably, or the snapshot that its driver has restored
    /// before the start. Below `base` it counts as `base`.
    pub applied: Index,
}

impl Recovered {
    /// A new node's: nothing in the log, this membership. For the first nodes of a cluster it is the same everywhere;
    /// for one that joins later any without itself, such as the cluster's present one: the log brings the rest.
    #[must_use]
    pub const fn fresh(incarnation: Incarnation, membership: Membership) -> Self {
        Self {
            incarnation,
            hard_state: HardState { term: Term(0), vote: None },
            base: LogId::ZERO,
            base_membership: membership,
            snapshot: None,
            terms: Vec::new(),
            last: Index(0),
            memberships: Vec::new(),
            applied: Index(0),
        }
    }
}

/// From `first` on, entries are of `term`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TermStart {
    /// The first index of that term.
    pub first: Index,
    /// The term.
    pub term: Term,
}

/// Keeps the bytes of snapshots, beside the thread that writes the log.
///
/// A snapshot is staged in chunks and then published: it is listed whole or not at all, whatever is interrupted. The
/// store removes those that newer ones have replaced: those before the newest one that is in the log or its base. That one is never
/// removed, for the log rests on it; nor is one after it, which may be about to be installed.
///
/// A sync that fails, of a file or of a directory, is as final as an error of [`Store::commit`]: the store refuses all that
/// follows. After another error, such as a full disk, it may go on, and the snapshot can be staged again.
pub trait Snapshots: Clone + Send + Sync + 'static {
    /// What can go wrong.
    type Error: core::error::Error + Send + Sync + 'static;
    /// Stages one.
    type Writer: SnapshotWriter<Error = Self::Error>;
    /// Reads one.
    type Reader: SnapshotReader<Error = Self::Error>;

    /// What is published of `group`, in the order of indexes.
    ///
    /// # Errors
    /// If the group does not exist, or it can't be told.
    fn list(&self, group: GroupId) -> Result<Vec<SnapshotInfo>, Self::Error>;

    /// Begins to stage a snapshot that is taken here, from its first byte.
    ///
    /// # Errors
    /// If one is being taken already, there is one at that index or a later one, or it can't be written.
    fn take(&self, group: GroupId, snapshot: &Snapshot) -> Result<Self::Writer, Self::Error>;

    /// Stages a snapshot that a peer has. It goes on where an earlier attempt at *the same* bytes was cut short: see
    /// [`SnapshotWriter::staged`]. What is left of an attempt at any other is removed. If there is one at this very entry it is
    /// there until this one takes its place.
    ///
    /// # Errors
    /// If one is being received already, there is a later one, or it can't be written.
    fn receive(&self, group: GroupId, info: &SnapshotInfo) -> Result<Self::Writer, Self::Error>;

    /// Opens a published snapshot; `None` if there is none at this entry. It can be read to its end even if the store
    /// removes it meanwhile.
    ///
    /// # Errors
    /// If it can't be read, or is damaged.
    fn open(&self, group: GroupId, last: LogId) -> Result<Option<Self::Reader>, Self::Error>;
}

/// A published snapshot, in short.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SnapshotInfo {
    /// Where in the log it is, and the membership there.
    pub snapshot: Snapshot,
    /// How many bytes it has.
    pub bytes: u64,
    /// CRC-32C of all of them. Two snapshots of one entry may differ in their bytes, as when two releases have taken
    /// them: a transfer that is resumed must go on with the same ones.
    pub checksum: u32,
}

/// Stages a snapshot. Dropped, it leaves at least what [`SnapshotWriter::sync`] has made durable of a received one, to be resumed;
/// of one that is taken here it leaves nothing.
pub trait SnapshotWriter: Send + 'static {
    /// What can go wrong.
    type Error: core::error::Error + Send + Sync + 'static;

    /// How many bytes are staged: the next write continues there. More than 0 at the beginning if it is resumed.
    fn staged(&self) -> u64;

    /// Adds a chunk of any size.
    ///
    /// # Errors
    /// If it can't be written, or it is more than was announced. Nothing can be staged by this writer after that.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Makes what is staged durable, as far as the store can resume there; to be called now and then.
    ///
    /// # Errors
    /// If it may not be durable.
    fn sync(&mut self) -> Result<(), Self::Error>;

    /// All bytes are here. When this returns they are durable and the snapshot is listed.
    ///
    /// # Errors
    /// If they are not what was announced, or may not be durable: then it is not listed.
    fn publish(self) -> Result<SnapshotInfo, Self::Error>;
}

/// Reads a snapshot, in any order of offsets.
pub trait SnapshotReader: Send + 'static {
    /// What can go wrong.
    type Error: core::error::Error + Send + Sync + 'static;

    /// Which it is.
    fn info(&self) -> &SnapshotInfo;

    /// Fills `out` from `offset` on, as far as there is something: fewer bytes than asked for only at the end, 0 beyond it.
    /// Every byte has been checked against damage before it is given.
    ///
    /// # Errors
    /// If they can't be read, or are damaged.
    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<usize, Self::Error>;
}

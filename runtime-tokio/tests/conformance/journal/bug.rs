//! What can be wrong with a store.

/// A mistake that a store's author could make. Each is planted in [`Journal`](super::Journal), to be caught.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// A commit returns before it is synced.
    AckBeforeSync,
    /// Term and vote go into a write of their own, before the entries that belong to them.
    VoteApart,
    /// A record is believed whatever its checksum says.
    ChecksumIgnored,
    /// A torn record at the end is skipped, and what comes next is appended after it.
    TornTailKept,
    /// The journal is cut off at the first bad record, even if good ones follow.
    DamageTakenForTornTail,
    /// The journal that takes the place of the old one is renamed before it is synced.
    RewriteNotSynced,
    /// The directory is not synced after the journal was renamed.
    RewriteNotInDirectory,
    /// The names that are there when it is opened are taken to be durable.
    NamesTakenForDurable,
    /// What is in the file when it is opened is taken to be durable.
    WritesTakenForDurable,
    /// The journal that is read back forgets truncations.
    TruncationNotReplayed,
    /// A truncation in the middle of a batch keeps all of it.
    StaleTail,
    /// A compaction in the middle of a batch removes all of it.
    CompactionTakesBatch,
    /// The membership at the base is not changed with it.
    MembershipAtBaseLost,
    /// A new incarnation is not written.
    IncarnationNotDurable,
    /// A write of an earlier incarnation is taken.
    StaleIncarnation,
    /// A write that is not the next one is taken.
    AnyOrder,
    /// A hard state of an earlier term is taken.
    TermGoesBack,
    /// Another vote in the same term is taken.
    SecondVote,
    /// Entries of an earlier term than those before them are taken.
    TermsDecrease,
    /// Entries that leave a gap are taken.
    Gap,
    /// A log may begin later without any snapshot.
    CompactionUnguarded,
    /// A snapshot may be installed that is not there.
    InstallationUnguarded,
    /// A compaction counts on a snapshot that is not in the log.
    CompactionOnForeign,
    /// The groups' ids are cut to 32 bits.
    GroupsMixed,
    /// A load gives all there is.
    LoadUnbounded,
    /// A load gives nothing if the first entry is larger than its limit.
    LoadNothing,
    /// A load below the base gives what is above it.
    LoadFromBase,
    /// A reader looks at the log twice.
    ReadTwice,
    /// Nothing is latched: after a failed sync the next commit is tried as if nothing had happened.
    NoLatch,
    /// A failed sync is tried again.
    SyncAgain,
    /// A snapshot that fails to be synced concerns nobody else.
    SnapshotSyncNotLatched,
    /// A snapshot's name is there before its bytes are synced.
    PublishedNotSynced,
    /// The directory is not synced after a snapshot was renamed.
    PublishedNotInDirectory,
    /// A transfer is resumed where its file ends, synced or not.
    ResumeAtEnd,
    /// A transfer is resumed with the bytes of another snapshot of the same entry.
    ResumeOther,
    /// A transfer is always begun anew.
    ResumeNever,
    /// What was received is not compared with what was announced.
    ReceivedUnchecked,
    /// More may be received than was announced.
    ReceivedMore,
    /// Two snapshots may be taken at once.
    TwoTakes,
    /// A snapshot that is dropped is published.
    DroppedIsPublished,
    /// Only the newest snapshot is kept, whether the log can rest on it or not.
    OnlyNewestKept,
    /// Recovery names the newest snapshot, whether it is in the log or not.
    NamesForeign,
    /// A snapshot is read by its name, for as long as that is there.
    ReadByName,
    /// A snapshot's bytes are not checked when they are read.
    SnapshotUnchecked,
    /// What is left of snapshots that were not published stays on the disk.
    LeftBehind,
    /// A group's creation is not synced.
    CreationNotSynced,
    /// A group may be created over one that is here.
    CreationOverwrites,
    /// Groups that were removed are listed.
    ListsRemoved,
    /// A group's removal is not synced.
    RemovalNotSynced,
    /// The files of a group are removed before it is durable that it is.
    FilesRemovedFirst,
    /// A group that was removed may be created again.
    RemovedTakenAgain,
    /// The journal that takes the place of the old one has forgotten which groups were removed.
    RemovedForgotten,
    /// Writes of groups that are not here are skipped.
    RemovedIgnored,
    /// The snapshots of a group that was removed stay on the disk.
    RemovedStays,
    /// Who stages a snapshot of a group that is removed may go on, and what he staged stays.
    StagedStays,
    /// What is staged of a group that was removed can be written on.
    StagedOn,
    /// The incarnations of many that are recovered at once are not written.
    ManyNotDurable,
    /// Recovered at once, each gets what the first one has.
    ManyAlike,
    /// Of a commit, each group's writes are a record of their own, the last group's first.
    GroupsOutOfOrder,
    /// What stands before a refused write in a commit is there.
    RefusedHalfDone,
    /// A refusal names the first group of the commit.
    RefusedWrongly,
}

impl Bug {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::AckBeforeSync,
        Self::VoteApart,
        Self::ChecksumIgnored,
        Self::TornTailKept,
        Self::DamageTakenForTornTail,
        Self::RewriteNotSynced,
        Self::RewriteNotInDirectory,
        Self::NamesTakenForDurable,
        Self::WritesTakenForDurable,
        Self::TruncationNotReplayed,
        Self::StaleTail,
        Self::CompactionTakesBatch,
        Self::MembershipAtBaseLost,
        Self::IncarnationNotDurable,
        Self::StaleIncarnation,
        Self::AnyOrder,
        Self::TermGoesBack,
        Self::SecondVote,
        Self::Gap,
        Self::CompactionUnguarded,
        Self::InstallationUnguarded,
        Self::CompactionOnForeign,
        Self::GroupsMixed,
        Self::LoadUnbounded,
        Self::LoadNothing,
        Self::LoadFromBase,
        Self::ReadTwice,
        Self::NoLatch,
        Self::SyncAgain,
        Self::SnapshotSyncNotLatched,
        Self::PublishedNotSynced,
        Self::PublishedNotInDirectory,
        Self::ResumeAtEnd,
        Self::ResumeOther,
        Self::ResumeNever,
        Self::ReceivedUnchecked,
        Self::ReceivedMore,
        Self::TwoTakes,
        Self::DroppedIsPublished,
        Self::OnlyNewestKept,
        Self::NamesForeign,
        Self::ReadByName,
        Self::SnapshotUnchecked,
        Self::LeftBehind,
        Self::TermsDecrease,
        Self::CreationNotSynced,
        Self::CreationOverwrites,
        Self::ListsRemoved,
        Self::RemovalNotSynced,
        Self::FilesRemovedFirst,
        Self::RemovedTakenAgain,
        Self::RemovedForgotten,
        Self::RemovedIgnored,
        Self::RemovedStays,
        Self::StagedStays,
        Self::StagedOn,
        Self::ManyNotDurable,
        Self::ManyAlike,
        Self::GroupsOutOfOrder,
        Self::RefusedHalfDone,
        Self::RefusedWrongly,
    ];

    /// The check that must catch it; others may as well.
    pub const fn caught_by(self) -> &'static str {
        match self {
            Self::AckBeforeSync
            | Self::VoteApart
            | Self::ChecksumIgnored
            | Self::TornTailKept
            | Self::RewriteNotSynced
            | Self::RewriteNotInDirectory
            | Self::NamesTakenForDurable
            | Self::WritesTakenForDurable => "crash_points",
            Self::DamageTakenForTornTail | Self::SnapshotUnchecked => "notices_damage",
            Self::TruncationNotReplayed | Self::StaleTail => "truncates",
            Self::CompactionTakesBatch | Self::MembershipAtBaseLost | Self::LoadFromBase => "begins_later",
            Self::IncarnationNotDurable => "incarnations_are_new",
            Self::StaleIncarnation
            | Self::AnyOrder
            | Self::TermGoesBack
            | Self::SecondVote
            | Self::Gap
            | Self::TermsDecrease
            | Self::CompactionUnguarded
            | Self::InstallationUnguarded
            | Self::CompactionOnForeign => "refuses_what_does_not_fit",
            Self::GroupsMixed => "keeps_groups_apart",
            Self::LoadUnbounded | Self::LoadNothing => "loads_what_is_asked_for",
            Self::ReadTwice => "reads_beside_the_writer",
            Self::NoLatch | Self::SyncAgain | Self::SnapshotSyncNotLatched => "io_errors",
            Self::PublishedNotSynced | Self::PublishedNotInDirectory | Self::ResumeAtEnd => {
                "snapshot_crash_points"
            }
            Self::ResumeOther | Self::ResumeNever => "resumes_transfers",
            Self::ReceivedUnchecked | Self::ReceivedMore => "refuses_other_bytes",
            Self::TwoTakes | Self::DroppedIsPublished => "stages_one_at_a_time",
            Self::OnlyNewestKept | Self::NamesForeign => "names_what_the_log_rests_on",
            Self::ReadByName => "reads_what_is_removed",
            Self::LeftBehind => "leaves_nothing_behind",
            Self::CreationNotSynced
            | Self::RemovalNotSynced
            | Self::FilesRemovedFirst
            | Self::GroupsOutOfOrder => "group_crash_points",
            Self::CreationOverwrites => "creates_groups",
            Self::ListsRemoved => "lists_groups",
            Self::RemovedTakenAgain | Self::RemovedForgotten | Self::RemovedIgnored => "removes_groups",
            Self::RemovedStays | Self::StagedStays => "leaves_nothing_of_removed_groups",
            Self::StagedOn => "removes_what_is_staged",
            Self::ManyNotDurable | Self::ManyAlike => "recovers_many",
            Self::RefusedHalfDone | Self::RefusedWrongly => "refuses_one_group_alone",
        }
    }
}

//! What has happened how often: a fault that is never exercised proves nothing.

use std::ops::{AddAssign, Index, IndexMut};

use crate::Profile;

macro_rules! counts {
    ($($variant:ident => $name:literal,)*) => {
        /// Something that is counted.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Count {
            $(#[doc = $name] $variant,)*
        }

        impl Count {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

counts! {
    Steps => "steps",
    Ticks => "ticks",
    Sent => "messages sent",
    Delivered => "messages delivered",
    Lost => "messages lost",
    Cut => "messages cut off",
    Duplicated => "messages duplicated",
    Replayed => "messages replayed",
    Vague => "hints made vague",
    Corrupted => "messages corrupted",
    Clogs => "links clogged",
    Cuts => "partitions",
    OneWay => "one-way cuts",
    Crashes => "crashes",
    CrashesAtAction => "crashes between actions",
    LostWrites => "writes lost in crashes",
    KeptWrites => "unreported writes kept by crashes",
    Pauses => "pauses",
    DiskFailures => "disk failures",
    Stalls => "disk stalls",
    SlowApplies => "state machine stalls",
    Full => "disks that are full",
    Rotten => "disks that rot",
    Damaged => "nodes that find their disk damaged",
    Forgotten => "disks that forget",
    TornWrites => "commits torn between writes",
    Reopened => "groups started again in their process",
    CrashLoops => "crash loops",
    LostTails => "leaders that lost their tail",
    Flaps => "links that flap",
    Replaced => "nodes replaced under a new id",
    Storms => "storms of transfers",
    Jumps => "clock jumps",
    EarlyTicks => "ticks that were not due",
    Holds => "leaders held up",
    Splits => "leaders that lost a minority",
    Elections => "leaders elected",
    LeaderChanges => "leader changes",
    PreCandidacies => "pre-candidacies",
    Candidacies => "candidacies",
    Truncations => "truncations",
    Conflicts => "conflicts",
    Commits => "entries committed",
    Loads => "loads",
    SnapshotsTaken => "snapshots taken",
    Compactions => "compactions",
    SnapshotsSent => "snapshots sent",
    SnapshotsFailed => "snapshots that broke off",
    SnapshotsArrived => "snapshots that arrived",
    SnapshotsUnwanted => "snapshots that nobody wanted",
    Installs => "snapshots installed",
    Restores => "states restored from snapshots",
    Memberships => "memberships appended by leaders",
    JointMemberships => "joint memberships",
    Changes => "membership changes taken",
    Changed => "membership changes done",
    Provisioned => "nodes added",
    Removed => "removed nodes that end",
    Lingering => "removed nodes that go on",
    Meddling => "campaigns, forgotten leaders and the like",
    Transfers => "transfers taken",
    Transferred => "transfers done",
    TransfersAborted => "transfers that came to nothing",
    TimeoutNows => "calls to campaign at once",
    Proposals => "proposals taken",
    Refused => "requests refused",
    Retries => "requests sent again",
    Unknown => "proposals of unknown outcome",
    Acknowledged => "proposals acknowledged",
    Reads => "reads served",
    LeaseReads => "lease reads served",
    ReadsAtLeast => "reads of at least some index served",
    ReadsAtFollowers => "reads served by followers",
    IdleSpells => "idle spells",
    LeadersAsleep => "leaders that fell asleep",
    FollowersAsleep => "followers that fell asleep",
    WokenByProposals => "leaders woken by proposals",
    WokenByReads => "leaders woken by reads",
    WokenByChanges => "leaders woken by changes and transfers",
    WokenByMembers => "leaders woken by members",
    WokenByReturns => "leaders woken by peers that are back",
    WokenWithoutQuorum => "leaders woken by the loss of a quorum",
    WokenByLeaders => "followers woken by their leader",
    WokenByVotes => "followers woken by requests for votes",
    WokenByLosses => "followers woken by the loss of their leader",
    WokenByWishes => "followers woken by reads and campaigns",
    LostAsleep => "leaders lost while everyone slept",
    StepDowns => "leaders that stepped down",
}

impl Count {
    /// Is it to be met in a run of that profile, some time?
    #[must_use]
    pub const fn is_expected_in(self, profile: Profile) -> bool {
        let mixed = !matches!(profile, Profile::Calm | Profile::Network | Profile::Disk);
        let network = mixed || matches!(profile, Profile::Network);
        let disk = mixed || matches!(profile, Profile::Disk);
        match self {
            Self::Forgotten => matches!(profile, Profile::Lies | Profile::Stale),
            Self::Lost
            | Self::Cut
            | Self::Duplicated
            | Self::Replayed
            | Self::Corrupted
            | Self::Clogs
            | Self::Cuts
            | Self::OneWay
            | Self::Flaps
            | Self::Holds => network,
            Self::CrashesAtAction
            | Self::DiskFailures
            | Self::Stalls
            | Self::SlowApplies
            | Self::Full
            | Self::Rotten
            | Self::Damaged
            | Self::Reopened
            | Self::LostTails
            | Self::CrashLoops => disk,
            Self::Crashes
            | Self::LostWrites
            | Self::KeptWrites
            | Self::TornWrites
            | Self::LeaderChanges
            | Self::Truncations
            | Self::SnapshotsFailed
            | Self::Unknown => network || disk,
            Self::Pauses
            | Self::Replaced
            | Self::Storms
            | Self::Jumps
            | Self::EarlyTicks
            | Self::Splits
            | Self::JointMemberships
            | Self::Changes
            | Self::Changed
            | Self::Provisioned
            | Self::Removed
            | Self::Lingering
            | Self::Meddling
            | Self::Transfers
            | Self::Transferred
            | Self::TransfersAborted
            | Self::TimeoutNows
            | Self::LeaseReads => mixed,
            Self::IdleSpells
            | Self::LeadersAsleep
            | Self::FollowersAsleep
            | Self::WokenByProposals
            | Self::WokenByReads
            | Self::WokenByChanges
            | Self::WokenByMembers
            | Self::WokenByReturns
            | Self::WokenWithoutQuorum
            | Self::WokenByLeaders
            | Self::WokenByVotes
            | Self::WokenByLosses
            | Self::WokenByWishes
            | Self::LostAsleep
            | Self::StepDowns => profile.may_sleep(),
            _ => true,
        }
    }
}

/// How often each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counts([u64; Count::ALL.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; Count::ALL.len()])
    }
}

impl Index<Count> for Counts {
    type Output = u64;

    fn index(&self, count: Count) -> &u64 {
        &self.0[count as usize]
    }
}

impl IndexMut<Count> for Counts {
    fn index_mut(&mut self, count: Count) -> &mut u64 {
        &mut self.0[count as usize]
    }
}

impl AddAssign<&Self> for Counts {
    fn add_assign(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(&other.0) {
            *sum += more;
        }
    }
}

impl Counts {
    /// One more.
    pub(crate) fn bump(&mut self, count: Count) {
        self[count] += 1;
    }

    /// Names and numbers.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Count::ALL.iter().map(|count| (count.name(), self[*count]))
    }
}

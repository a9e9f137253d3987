//! What the snapshots of all groups of a process share: how many at a time, how fast, and what is going on.

use std::{
    collections::BTreeMap,
    num::NonZeroU64,
    sync::{Arc, PoisonError},
    time::Duration,
};

use quorate_core::{GroupId, Term};
use tokio::sync::{Semaphore, watch};

use super::{frame::MAX_CHUNK, policy::SnapshotConfigError, progress::Board, throttle::Throttle};
#[cfg(feature = "serde")]
use crate::config::text;
use crate::{lane::Runner, sync::Mutex};

/// How much snapshots may take of a process and its network, all groups together.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct SnapshotLimits {
    /// Bytes a second that are written of snapshots taken here; `None`: as fast as it goes, at the cost of whoever commits
    /// meanwhile. Default 32 MiB.
    #[cfg_attr(feature = "serde", serde(with = "text::rate"))]
    pub take_rate: Option<NonZeroU64>,
    /// Bytes a second that are sent. Default 32 MiB.
    #[cfg_attr(feature = "serde", serde(with = "text::rate"))]
    pub send_rate: Option<NonZeroU64>,
    /// Bytes a second that are staged of what peers send. Default 32 MiB.
    #[cfg_attr(feature = "serde", serde(with = "text::rate"))]
    pub receive_rate: Option<NonZeroU64>,
    /// How many are sent at a time; others wait their turn. At least 1, default 2.
    pub sends: usize,
    /// How many are received at a time; others wait their turn, with their sender. At least 1, default 2.
    pub receives: usize,
    /// Bytes of a chunk, 4 KiB to 1 MiB; a transfer holds one or two of them in memory. Default 128 KiB.
    #[cfg_attr(feature = "serde", serde(with = "text::bytes"))]
    pub chunk_bytes: usize,
    /// What is received is synced each time it has grown by this many bytes: no more is sent again after a crash. Default 8 MiB.
    #[cfg_attr(feature = "serde", serde(with = "text::bytes"))]
    pub sync_bytes: u64,
    /// A transfer is given up when not even one chunk has moved for this long, and no sign of life has come. At least 1 ms, default
    /// 30 s.
    #[cfg_attr(feature = "serde", serde(with = "text::duration"))]
    pub stall_timeout: Duration,
    /// For how long one waits its turn to be received before it is refused. Default 5 min.
    #[cfg_attr(feature = "serde", serde(with = "text::duration"))]
    pub queue_timeout: Duration,
    /// When a leader asks another node to send a snapshot in its place.
    pub source: SnapshotSourcing,
}

/// When a leader asks another node, one that has caught up, to send a snapshot in its place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum SnapshotSourcing {
    /// Never: it sends all of them itself.
    Never,
    /// When it sends as many already as it may at a time.
    #[default]
    WhenBusy,
    /// Whenever there is one.
    Always,
}

impl Default for SnapshotLimits {
    fn default() -> Self {
        Self::standard()
    }
}

impl SnapshotLimits {
    /// The defaults.
    pub(crate) const fn standard() -> Self {
        let rate = NonZeroU64::new(32 << 20);
        Self {
            take_rate: rate,
            send_rate: rate,
            receive_rate: rate,
            sends: 2,
            receives: 2,
            chunk_bytes: 128 << 10,
            sync_bytes: 8 << 20,
            stall_timeout: Duration::from_secs(30),
            queue_timeout: Duration::from_secs(300),
            source: SnapshotSourcing::WhenBusy,
        }
    }
}

impl SnapshotLimits {
    /// Is it possible?
    ///
    /// # Errors
    /// If a number is not within its range.
    pub fn validate(&self) -> Result<(), SnapshotConfigError> {
        let chunk = self.chunk_bytes as u64;
        if !(4 << 10..=MAX_CHUNK).contains(&self.chunk_bytes) {
            let must = "4 KiB to 1 MiB";
            return Err(SnapshotConfigError { field: "chunk_bytes", must, found: chunk });
        }
        for (field, found) in [("sends", self.sends), ("receives", self.receives)] {
            if found == 0 || found > 1024 {
                return Err(SnapshotConfigError { field, must: "1 to 1024", found: found as u64 });
            }
        }
        if self.stall_timeout < Duration::from_millis(1) {
            return Err(SnapshotConfigError { field: "stall_timeout", must: "at least 1 ms", found: 0 });
        }
        // Slower than that, and a chunk would take so long that the other side gives up.
        for (field, rate) in [("send_rate", self.send_rate), ("receive_rate", self.receive_rate)] {
            if let Some(found) = rate.map(NonZeroU64::get).filter(|rate| *rate < chunk) {
                return Err(SnapshotConfigError { field, must: "at least chunk_bytes a second", found });
            }
        }
        Ok(())
    }
}

/// Shared by all that is done with snapshots in a process.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) limits: SnapshotLimits,
    /// Where what blocks is done.
    pub(crate) runner: Runner,
    /// One is taken at a time.
    pub(crate) taking: Arc<Semaphore>,
    pub(crate) sending: Arc<Semaphore>,
    pub(crate) receiving: Arc<Semaphore>,
    /// Streams whose first frame has not come yet: more are dropped.
    pub(crate) opening: Arc<Semaphore>,
    pub(crate) take_throttle: Throttle,
    pub(crate) send_throttle: Throttle,
    pub(crate) receive_throttle: Throttle,
    pub(crate) board: Arc<Board>,
    slots: Mutex<BTreeMap<GroupId, Slot>>,
}

/// How many streams may be open of which nobody knows yet what they want.
const OPENING: usize = 64;

/// A group receives one snapshot at a time.
#[derive(Debug, Default)]
struct Slot {
    /// Held for as long as something is staged.
    staging: Arc<tokio::sync::Mutex<()>>,
    /// Who holds it, or waits for it.
    current: Option<Current>,
    /// How many turns there have been. Some that were lost may not be dropped yet, so none has the number of another.
    turns: u64,
}

impl Slot {
    /// Nobody waits, and nothing is staged.
    fn is_idle(&self) -> bool {
        self.current.is_none() && Arc::strong_count(&self.staging) == 1
    }
}

#[derive(Debug)]
struct Current {
    term: Term,
    number: u64,
    superseded: watch::Sender<bool>,
}

/// The right to stage a snapshot of a group, until another comes that has a better one.
#[derive(Debug)]
pub(crate) struct Turn {
    desk: Arc<Desk>,
    group: GroupId,
    number: u64,
    pub(crate) staging: Arc<tokio::sync::Mutex<()>>,
    superseded: watch::Receiver<bool>,
}

impl Desk {
    pub(crate) fn new(limits: SnapshotLimits, runner: Runner) -> Arc<Self> {
        // Where time is virtual nobody can sleep while he holds up the runtime.
        let take_rate = limits.take_rate.filter(|_| matches!(runner, Runner::Threads(_)));
        Arc::new(Self {
            runner,
            taking: Arc::new(Semaphore::new(1)),
            sending: Arc::new(Semaphore::new(limits.sends)),
            receiving: Arc::new(Semaphore::new(limits.receives)),
            opening: Arc::new(Semaphore::new(OPENING)),
            take_throttle: Throttle::new(take_rate),
            send_throttle: Throttle::new(limits.send_rate),
            receive_throttle: Throttle::new(limits.receive_rate),
            board: Arc::default(),
            slots: Mutex::default(),
            limits,
        })
    }

    /// A snapshot of `group` is offered for a leader of `term`. It takes the place of one that is under way, for whoever sends
    /// the next one has given up that one, or deposed its leader. `None` if that one's leader is of a later term.
    pub(crate) fn take_turn(self: &Arc<Self>, group: GroupId, term: Term) -> Option<Turn> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        // Forgotten, so that groups that come and go leave nothing behind. Not only when a turn is over: a thread may be
        // staging for a while after that.
        slots.retain(|other, slot| *other == group || !slot.is_idle());
        let slot = slots.entry(group).or_default();
        match &slot.current {
            Some(current) if current.term > term => return None,
            Some(current) => drop(current.superseded.send_replace(true)),
            None => {}
        }
        let number = slot.turns;
        slot.turns += 1;
        let (superseded, receiver) = watch::channel(false);
        slot.current = Some(Current { term, number, superseded });
        let staging = slot.staging.clone();
        Some(Turn { desk: self.clone(), group, number, staging, superseded: receiver })
    }
}

impl Turn {
    /// Returns when another has taken its place.
    pub(crate) async fn superseded(&self) {
        // If the sender were gone another would have taken its place, too.
        let mut superseded = self.superseded.clone();
        let _closed = superseded.wait_for(|superseded| *superseded).await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut slots = self.desk.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get_mut(&self.group) {
            slot.current.take_if(|current| current.number == self.number);
            // Let go of under the lock: of two that go at once the second sees that it is the last.
            self.staging = Arc::default();
            if slot.is_idle() {
                slots.remove(&self.group);
            }
        }
    }
}

#[cfg(all(test, feature = "shuttle"))]
mod races;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_possible_is_valid() {
        let good = SnapshotLimits::default;
        assert_eq!(good().validate(), Ok(()));
        for (bad, field) in [
            (SnapshotLimits { chunk_bytes: 4095, ..good() }, "chunk_bytes"),
            (SnapshotLimits { chunk_bytes: MAX_CHUNK + 1, ..good() }, "chunk_bytes"),
            (SnapshotLimits { sends: 0, ..good() }, "sends"),
            (SnapshotLimits { receives: 0, ..good() }, "receives"),
            (SnapshotLimits { stall_timeout: Duration::ZERO, ..good() }, "stall_timeout"),
            (SnapshotLimits { send_rate: NonZeroU64::new(1), ..good() }, "send_rate"),
            (SnapshotLimits { receive_rate: NonZeroU64::new(1), ..good() }, "receive_rate"),
        ] {
            let error = bad.validate().unwrap_err();
            assert_eq!(error.field, field);
            assert!(error.to_string().contains(field), "{error}");
        }
    }

    #[tokio::test]
    async fn a_turn_is_lost_to_the_same_term_or_a_later_one_and_never_to_an_earlier_one() {
        let desk = Desk::new(SnapshotLimits::default(), Runner::Threads(tokio::runtime::Handle::current()));
        let (group, other) = (GroupId(1), GroupId(2));
        let first = desk.take_turn(group, Term(5)).unwrap();
        assert!(desk.take_turn(group, Term(4)).is_none());
        assert!(desk.take_turn(other, Term(1)).is_some(), "groups have nothing to do with each other");
        let second = desk.take_turn(group, Term(5)).unwrap();
        first.superseded().await;
        drop(first);
        assert!(desk.take_turn(group, Term(4)).is_none(), "the second still has it");
        let third = desk.take_turn(group, Term(6)).unwrap();
        second.superseded().await;
        drop((second, third));
        assert!(desk.take_turn(group, Term(1)).is_some(), "over, and forgotten");
        assert!(desk.slots.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn whoever_has_lost_his_turn_takes_none_away_when_he_goes_and_staging_outlasts_it() {
        let desk = Desk::new(SnapshotLimits::default(), Runner::Threads(tokio::runtime::Handle::current()));
        let (group, other) = (GroupId(1), GroupId(2));
        let first = desk.take_turn(group, Term(5)).unwrap();
        drop(desk.take_turn(group, Term(5)));
        let third = desk.take_turn(group, Term(5)).unwrap();
        drop(first);
        assert!(desk.take_turn(group, Term(4)).is_none(), "the third still has it");
        let staging = third.staging.clone().lock_owned().await;
        drop(third);
        let fourth = desk.take_turn(group, Term(5)).unwrap();
        assert!(fourth.staging.try_lock().is_err(), "one at a time");
        drop(fourth);
        let has = |group| desk.slots.lock().unwrap().contains_key(&group);
        assert!(has(group), "something is staged still");
        drop(staging);
        let _turn = desk.take_turn(other, Term(1));
        assert!(has(other) && !has(group), "forgotten when another comes");
    }
}

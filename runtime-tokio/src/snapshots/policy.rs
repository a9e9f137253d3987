//! When to take a snapshot, and how much of the log to keep: pure arithmetic over what was applied.

use std::{collections::VecDeque, time::Duration};

use quorate_core::Index;

#[cfg(feature = "serde")]
use crate::config::text;

/// When a node takes snapshots by itself, and what stays in its log then.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct SnapshotPolicy {
    /// Take any at all? Off, only [`Node::snapshot`](crate::Node) takes one. Default on.
    pub automatic: bool,
    /// One is due when so many entries have been applied since the last one, at least 1. Default 100,000.
    pub entries: u64,
    /// Or when they have so many bytes, at least 1. Default 64 MiB.
    #[cfg_attr(feature = "serde", serde(with = "text::bytes"))]
    pub bytes: u64,
    /// But not before those entries have so many hundredths of the last snapshot's bytes, so that a big state is not written
    /// over and over for a few changes. 0: it doesn't matter how big it was. Default 50.
    pub size_percent: u32,
    /// Nor sooner than this after the last one has begun, or failed. Default 10 s.
    #[cfg_attr(feature = "serde", serde(with = "text::duration"))]
    pub min_pause: Duration,
    /// So many of the entries before a snapshot stay in the log, for followers that lag a little. Default 10,000.
    pub keep_entries: u64,
    /// But only as many as have no more bytes than this. Default 16 MiB.
    #[cfg_attr(feature = "serde", serde(with = "text::bytes"))]
    pub keep_bytes: u64,
    /// While a snapshot is on its way to a follower, what comes after it stays in the log, or the follower would need the next
    /// one at once; unless that is more than so many bytes. Default 1 GiB.
    #[cfg_attr(feature = "serde", serde(with = "text::bytes"))]
    pub hold_bytes: u64,
    /// The log is cut by this many bytes at a time, for commits wait while it is, at least 1. Default 4 MiB.
    #[cfg_attr(feature = "serde", serde(with = "text::bytes"))]
    pub piece_bytes: u64,
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self {
            automatic: true,
            entries: 100_000,
            bytes: 64 << 20,
            size_percent: 50,
            min_pause: Duration::from_secs(10),
            keep_entries: 10_000,
            keep_bytes: 16 << 20,
            hold_bytes: 1 << 30,
            piece_bytes: 4 << 20,
        }
    }
}

/// Why a [`SnapshotPolicy`] or [`SnapshotLimits`](crate::SnapshotLimits) is not valid.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("snapshots: {field} must be {must}, not {found}")]
pub struct SnapshotConfigError {
    /// Which field.
    pub field: &'static str,
    /// What it must be.
    pub must: &'static str,
    /// What it is.
    pub found: u64,
}

impl SnapshotPolicy {
    /// None are taken but those that are asked for.
    #[must_use]
    pub fn manual() -> Self {
        Self { automatic: false, ..Self::default() }
    }

    /// Is it possible?
    ///
    /// # Errors
    /// If a number is 0 that must not be.
    pub fn validate(&self) -> Result<(), SnapshotConfigError> {
        let zero = |field| Err(SnapshotConfigError { field, must: "at least 1", found: 0 });
        match self {
            Self { entries: 0, .. } => zero("entries"),
            Self { bytes: 0, .. } => zero("bytes"),
            Self { piece_bytes: 0, .. } => zero("piece_bytes"),
            _ => Ok(()),
        }
    }

    /// From when on one is due, if the log is big enough for it.
    pub(crate) fn due_at(&self, log: &LogSize) -> Option<Duration> {
        if !self.automatic {
            return None;
        }
        let (entries, bytes) = (log.applied.0.saturating_sub(log.snapshot.0), log.since_snapshot());
        let least = u128::from(log.snapshot_bytes) * u128::from(self.size_percent) / 100;
        let due = u128::from(bytes) >= least && (entries >= self.entries || bytes >= self.bytes);
        (due && entries > 0).then(|| log.not_before.unwrap_or_default())
    }

    /// Where the log may begin, with a snapshot at `log.snapshot`. A transfer of a snapshot at `sending` is under way.
    pub(crate) fn base(&self, log: &LogSize, sending: Option<Index>) -> Index {
        let snapshot = log.snapshot;
        let by_entries = Index(snapshot.0.saturating_sub(self.keep_entries));
        let by_bytes = log.first_within(snapshot, self.keep_bytes);
        let base = by_entries.max(by_bytes).min(snapshot);
        match sending.filter(|sending| *sending < base) {
            Some(sending) if log.between(sending, log.applied) <= self.hold_bytes => sending,
            _ => base,
        }
    }

    /// The next piece of compaction: where the log, which begins after `log.base`, begins after it. `None` if `to` is reached.
    pub(crate) fn next_piece(&self, log: &LogSize, to: Index) -> Option<Index> {
        if to <= log.base {
            return None;
        }
        let most = log.base.0.saturating_add(log.piece_entries()).min(to.0);
        let by_bytes = log.last_within(log.base, self.piece_bytes);
        // At least one entry, however big.
        Some(Index(most.min(by_bytes.0).max(log.base.0 + 1)))
    }
}

/// How big the log is, as far as this node has applied it since it was started: bytes at some indexes, and a straight line between.
///
/// Bounded: beyond [`MARKS`] of them every second mark is forgotten.
#[derive(Debug)]
pub(crate) struct LogSize {
    /// The log begins after this.
    base: Index,
    /// The last snapshot that is published.
    snapshot: Index,
    snapshot_bytes: u64,
    applied: Index,
    not_before: Option<Duration>,
    /// Bytes of all entries up to an index, counted from where the first mark is.
    marks: VecDeque<Mark>,
    /// No two marks are closer than this, but for the last.
    grain: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    index: Index,
    bytes: u64,
}

const MARKS: usize = 2048;
const GRAIN: u64 = 64 << 10;

/// Where it is not known how big the entries are, as few are cut at a time.
const BLIND_PIECE: u64 = 2_048;
/// However small they are, no more than these.
const MAX_PIECE: u64 = 65_536;

impl LogSize {
    /// A node starts: its log begins after `base`, its newest snapshot has so many bytes, and its state machine is at `applied`.
    pub(crate) fn new(base: Index, snapshot: Index, snapshot_bytes: u64, applied: Index) -> Self {
        let marks = VecDeque::from([Mark { index: applied, bytes: 0 }]);
        Self { base, snapshot, snapshot_bytes, applied, not_before: None, marks, grain: GRAIN }
    }

    /// Entries up to `last`, of so many bytes, were handed to apply, after those before.
    pub(crate) fn handed(&mut self, last: Index, bytes: u64) {
        let Some(newest) = self.marks.back().copied().filter(|newest| newest.index < last) else { return };
        let mark = Mark { index: last, bytes: newest.bytes.saturating_add(bytes) };
        let before = self.marks.len().checked_sub(2).and_then(|at| self.marks.get(at));
        if before.is_some_and(|before| mark.bytes.saturating_sub(before.bytes) <= self.grain) {
            self.marks.pop_back();
        }
        self.marks.push_back(mark);
        if self.marks.len() > MARKS {
            let mut n = 0;
            let newest = self.marks.len();
            self.marks.retain(|_| {
                n += 1;
                n % 2 == 1 || n == newest
            });
            self.grain = self.grain.saturating_mul(2);
        }
    }

    /// The state machine is up to here.
    pub(crate) fn applied(&mut self, up_to: Index) {
        self.applied = self.applied.max(up_to);
    }

    /// One is begun, or has failed: the next one comes no sooner than the pause after `now`.
    pub(crate) fn attempted(&mut self, now: Duration, pause: Duration) {
        self.not_before = Some(now.saturating_add(pause));
    }

    /// One was published, here.
    pub(crate) fn published(&mut self, at: Index, bytes: u64) {
        if at > self.snapshot {
            self.snapshot = at;
            self.snapshot_bytes = bytes;
        }
    }

    /// The log begins after `base` now.
    pub(crate) fn compacted(&mut self, base: Index) {
        self.base = self.base.max(base);
        // The mark before the base stays, to draw the line from.
        while self.marks.get(1).is_some_and(|second| second.index <= self.base) {
            self.marks.pop_front();
        }
    }

    /// A snapshot has taken the place of the log.
    pub(crate) fn installed(&mut self, at: Index, bytes: u64) {
        let not_before = self.not_before;
        *self = Self { not_before, ..Self::new(at, at, bytes, at) };
    }

    /// The state machine has come to an installed snapshot, and knows how big it is.
    pub(crate) fn restored(&mut self, at: Index, bytes: u64) {
        if at == self.snapshot {
            self.snapshot_bytes = bytes;
        }
    }

    /// Where the log begins.
    pub(crate) const fn base(&self) -> Index {
        self.base
    }

    /// Where the last snapshot is.
    pub(crate) const fn snapshot(&self) -> Index {
        self.snapshot
    }

    fn since_snapshot(&self) -> u64 {
        self.between(self.snapshot, self.applied)
    }

    /// Bytes of the entries after `from` up to `to`, as far as they are known.
    fn between(&self, from: Index, to: Index) -> u64 {
        self.bytes_at(to).saturating_sub(self.bytes_at(from))
    }

    /// Bytes up to `index`, on the line between the marks beside it.
    fn bytes_at(&self, index: Index) -> u64 {
        let at = self.marks.partition_point(|mark| mark.index <= index);
        let before = at.checked_sub(1).and_then(|at| self.marks.get(at)).copied();
        match (before, self.marks.get(at)) {
            (Some(before), Some(after)) => {
                let (part, whole) = (index.0 - before.index.0, after.index.0 - before.index.0);
                let bytes = u128::from(after.bytes - before.bytes) * u128::from(part) / u128::from(whole);
                before.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX))
            }
            (Some(last), None) => last.bytes,
            (None, first) => first.map_or(0, |first| first.bytes),
        }
    }

    /// The first index such that what is after it, up to `end`, has at most so many bytes.
    fn first_within(&self, end: Index, bytes: u64) -> Index {
        let least = self.bytes_at(end).saturating_sub(bytes);
        let at = self.marks.partition_point(|mark| mark.bytes < least);
        // Below the first mark nothing is known, and so nothing is cut for its bytes.
        if at == 0 { Index(0) } else { self.marks.get(at).map_or(end, |mark| mark.index.min(end)) }
    }

    /// The last index such that what is after `from` up to it has at most so many bytes, for all that is known.
    fn last_within(&self, from: Index, bytes: u64) -> Index {
        let most = self.bytes_at(from).saturating_add(bytes);
        let at = self.marks.partition_point(|mark| mark.bytes <= most);
        match self.marks.get(at) {
            // On the line to the mark that is beyond.
            Some(after) => {
                let before = at.checked_sub(1).and_then(|at| self.marks.get(at)).copied();
                let before = before.unwrap_or(Mark { index: from, bytes: 0 });
                let span = after.bytes.saturating_sub(before.bytes).max(1);
                let part = u128::from(most.saturating_sub(before.bytes))
                    * u128::from(after.index.0.saturating_sub(before.index.0))
                    / u128::from(span);
                before.index.plus(u64::try_from(part).unwrap_or(u64::MAX))
            }
            None => Index(u64::MAX),
        }
    }

    fn piece_entries(&self) -> u64 {
        let known = self.marks.front().is_some_and(|first| first.index <= self.base);
        if known { MAX_PIECE } else { BLIND_PIECE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    impl SnapshotPolicy {
        fn is_due(&self, log: &LogSize, now: Duration) -> bool {
            self.due_at(log).is_some_and(|due| due <= now)
        }
    }

    fn policy() -> SnapshotPolicy {
        SnapshotPolicy {
            entries: 1_000,
            bytes: 1 << 20,
            keep_entries: 100,
            keep_bytes: 64 << 10,
            piece_bytes: 128 << 10,
            ..SnapshotPolicy::default()
        }
    }

    /// So many entries of this size more are applied, ten at a time.
    fn grow(log: &mut LogSize, entries: u64, size: u64) {
        let end = log.applied.0 + entries;
        while log.applied.0 < end {
            let last = Index((log.applied.0 + 10).min(end));
            log.handed(last, (last.0 - log.applied.0) * size);
            log.applied(last);
        }
    }

    #[test]
    fn is_due_after_so_many_entries_or_bytes_whichever_comes_first() {
        let mut log = LogSize::new(Index(0), Index(0), 0, Index(0));
        assert!(!policy().is_due(&log, SECOND), "of nothing");
        grow(&mut log, 999, 10);
        assert!(!policy().is_due(&log, SECOND));
        grow(&mut log, 1, 10);
        assert!(policy().is_due(&log, SECOND));
        assert!(!SnapshotPolicy { automatic: false, ..policy() }.is_due(&log, SECOND));

        let mut log = LogSize::new(Index(0), Index(0), 0, Index(0));
        grow(&mut log, 255, 4 << 10);
        assert!(!policy().is_due(&log, SECOND));
        grow(&mut log, 1, 4 << 10);
        assert!(policy().is_due(&log, SECOND));
        log.published(log.applied, 10);
        assert!(!policy().is_due(&log, SECOND));
        grow(&mut log, 256, 4 << 10);
        assert!(policy().is_due(&log, SECOND));
    }

    #[test]
    fn what_was_handed_over_and_is_not_applied_yet_does_not_count() {
        let mut log = LogSize::new(Index(0), Index(0), 0, Index(0));
        log.handed(Index(5_000), 5 << 20);
        log.applied(Index(999));
        assert!(!policy().is_due(&log, SECOND));
        log.applied(Index(1_000));
        assert!(policy().is_due(&log, SECOND));
    }

    #[test]
    fn a_big_state_is_not_written_for_a_few_changes() {
        let mut log = LogSize::new(Index(0), Index(0), 8 << 20, Index(0));
        grow(&mut log, 1_023, 4 << 10);
        assert!(!policy().is_due(&log, SECOND));
        grow(&mut log, 1, 4 << 10);
        assert!(policy().is_due(&log, SECOND), "half of its size");
        assert!(SnapshotPolicy { size_percent: 0, ..policy() }.is_due(&log, SECOND));
    }

    #[test]
    fn pauses_after_each_attempt() {
        let mut log = LogSize::new(Index(0), Index(0), 0, Index(0));
        grow(&mut log, 1_000, 10);
        log.attempted(SECOND, 10 * SECOND);
        assert!(!policy().is_due(&log, 10 * SECOND));
        assert!(policy().is_due(&log, 11 * SECOND));
        log.installed(Index(5_000), 10);
        grow(&mut log, 1_000, 10);
        assert!(!policy().is_due(&log, 10 * SECOND), "an installed one does not end the pause");
    }

    #[test]
    fn keeps_entries_but_no_more_than_some_bytes_of_them() {
        let mut log = LogSize::new(Index(0), Index(0), 0, Index(0));
        grow(&mut log, 1_000, 10);
        log.published(Index(1_000), 1);
        assert_eq!(policy().base(&log, None), Index(900));
        grow(&mut log, 1_000, 4 << 10);
        log.published(Index(2_000), 1);
        // 64 KiB are 16 entries; marks are of 64 KiB at the best.
        let base = policy().base(&log, None);
        assert!((1_984..=2_000).contains(&base.0), "{base}");
        // Nothing is known of what was before the start, so only entries count there.
        let log = LogSize::new(Index(50), Index(500), 0, Index(500));
        assert_eq!(policy().base(&log, None), Index(400));
    }

    #[test]
    fn holds_what_a_follower_needs_after_the_snapshot_that_it_gets() {
        let mut log = LogSize::new(Index(0), Index(0), 0, Index(0));
        grow(&mut log, 3_000, 1 << 10);
        log.published(Index(3_000), 1);
        assert_eq!(policy().base(&log, Some(Index(1_000))), Index(1_000));
        let little = SnapshotPolicy { hold_bytes: 1 << 20, ..policy() };
        assert!(little.base(&log, Some(Index(1_000))) > Index(2_900), "unless it is too much");
        assert!(
            policy().base(&log, Some(Index(2_999))) < Index(2_999),
            "one that is near holds nothing back"
        );
    }

    #[test]
    fn cuts_in_pieces_of_so_many_bytes() {
        let mut log = LogSize::new(Index(0), Index(0), 0, Index(0));
        grow(&mut log, 2_000, 1 << 10);
        log.published(Index(2_000), 1);
        let policy = policy();
        let (mut pieces, to) = (0, policy.base(&log, None));
        while let Some(next) = policy.next_piece(&log, to) {
            assert!(next > log.base() && next <= to);
            assert!(next.0 - log.base().0 <= 128, "{} entries at once", next.0 - log.base().0);
            log.compacted(next);
            pieces += 1;
        }
        assert_eq!(log.base(), to);
        assert!((15..=17).contains(&pieces), "{pieces} pieces");
        // One that is bigger than a piece is cut all the same.
        log.handed(Index(2_001), 100 << 20);
        log.handed(Index(2_002), 1);
        log.applied(Index(2_002));
        log.published(Index(2_002), 1);
        while let Some(next) = policy.next_piece(&log, Index(2_002)) {
            log.compacted(next);
        }
        assert_eq!(log.base(), Index(2_002));
    }

    #[test]
    fn small_entries_and_unknown_ones_are_cut_by_number() {
        let mut log = LogSize::new(Index(0), Index(0), 0, Index(0));
        grow(&mut log, 200_000, 0);
        assert_eq!(policy().next_piece(&log, Index(200_000)), Some(Index(MAX_PIECE)));
        let log = LogSize::new(Index(10), Index(100_000), 0, Index(100_000));
        assert_eq!(policy().next_piece(&log, Index(100_000)), Some(Index(10 + BLIND_PIECE)));
        assert_eq!(policy().next_piece(&log, Index(10)), None);
    }

    #[test]
    fn remembers_a_long_log_in_little_room() {
        let mut log = LogSize::new(Index(0), Index(0), 0, Index(0));
        for n in 1..=100_000_u64 {
            log.handed(Index(n * 10), 64 << 10);
        }
        log.applied(Index(1_000_000));
        assert!(log.marks.len() <= MARKS);
        assert_eq!(log.since_snapshot(), 100_000 * (64 << 10));
        // Even entries lie on a line, however coarse.
        assert_eq!(log.bytes_at(Index(500_000)), 50_000 * (64 << 10));
        log.published(Index(1_000_000), 1);
        log.compacted(Index(999_000));
        assert!(log.marks.len() < 5, "{}", log.marks.len());
        assert_eq!(log.between(Index(999_000), Index(1_000_000)), 100 * (64 << 10));
    }

    #[test]
    fn zeros_are_refused() {
        assert_eq!(SnapshotPolicy::default().validate(), Ok(()));
        for (bad, field) in [
            (SnapshotPolicy { entries: 0, ..policy() }, "entries"),
            (SnapshotPolicy { bytes: 0, ..policy() }, "bytes"),
            (SnapshotPolicy { piece_bytes: 0, ..policy() }, "piece_bytes"),
        ] {
            assert_eq!(bad.validate().unwrap_err().field, field);
        }
    }
}

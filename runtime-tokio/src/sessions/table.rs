//! The table of sessions: who has one, and what was answered in it. What is in it follows from the log alone.

use std::{collections::BTreeMap, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use quorate_core::{Sink, Source, StateError};

use super::wire::SessionId;

/// How a snapshot with sessions begins.
const MAGIC: &[u8; 4] = b"qses";

/// The layout of snapshots that is written.
const VERSION: u8 = 1;

/// No limit of [`Limits::outstanding`] is beyond this, and of [`Limits::sessions`].
const MAX_OUTSTANDING: u32 = 65_536;
const MAX_SESSIONS: u32 = 1 << 24;

/// What sessions may cost. They are part of the replicated state: all nodes of a group must begin with the same ones, and
/// keep them for as long as its log goes back to the beginning; they are changed by
/// [`Command::Configure`](super::Command::Configure), and a snapshot brings its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Limits {
    /// How many sessions there may be: beyond it, the one goes that no entry has named for longest. From 1 to 16,777,216;
    /// default 4,096.
    pub sessions: u32,
    /// How far a command may be ahead of what its client has acknowledged, and so how many replies are kept for a session.
    /// From 1 to 65,536; default 256.
    pub outstanding: u32,
    /// When the replies kept for a session have this many bytes, no other command of it is applied until the client has
    /// acknowledged some, but for the first that it waits for: so the table holds at most this and two replies more for
    /// each. At least 1; default 1 MiB.
    pub reply_bytes: u64,
    /// A session that was not named for this long ends, by the time that commands carry: the latest that any of them has
    /// said. A client whose clock is ahead by more than this ends all the sessions of others. At least 1 ms, in whole ms;
    /// default `None`: never.
    pub idle: Option<Duration>,
}

/// Why limits are none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field} of sessions is {value}, but must be {rule}")]
pub struct LimitsError {
    /// The field's name.
    pub field: &'static str,
    /// What it was: bytes, ms or a count.
    pub value: u64,
    /// What it must be.
    pub rule: &'static str,
}

/// Why a state is no snapshot of sessions.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It begins otherwise.
    #[error("it is no snapshot of a state machine with sessions")]
    Foreign,
    /// Of another version.
    #[error("unknown version {0} of snapshots with sessions; this release knows 1")]
    Version(u8),
    /// It ends within the table.
    #[error("its table of sessions is cut short")]
    Short,
    /// Nothing that was ever written.
    #[error("its table of sessions is damaged: {0}")]
    Damaged(&'static str),
}

/// All sessions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Table {
    limits: Limits,
    /// The latest time that any command has said.
    clock: u64,
    sessions: BTreeMap<SessionId, Session>,
    /// Sessions by last use: an entry names one at most, so no two were used last by the same. As the clock never goes back,
    /// whoever was used first was also seen first.
    by_use: BTreeMap<u64, SessionId>,
    /// The sum of the hashes of all that is in `sessions`.
    sum: u64,
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Session {
    /// The index of the last entry that named it.
    used: u64,
    /// The clock at that entry.
    seen: u64,
    /// Replies up to this command are forgotten.
    acknowledged: u64,
    /// The others.
    replies: BTreeMap<u64, Bytes>,
    /// Their bytes.
    bytes: u64,
}

/// What there is about a command.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Found {
    UnknownSession,
    Stale,
    TooFarAhead,
    Full,
    /// It was applied, and answered so.
    Before(Bytes),
    /// It never was: it is to be applied, and [recorded](Table::record).
    Never,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sessions: 4096, outstanding: 256, reply_bytes: 1 << 20, idle: None }
    }
}

impl Limits {
    /// Is every field in its range?
    ///
    /// # Errors
    /// The first that is not, with what it must be.
    pub fn validate(&self) -> Result<(), LimitsError> {
        let rule = |ok: bool, field, value, rule| {
            if ok { Ok(()) } else { Err(LimitsError { field, value, rule }) }
        };
        let (sessions, outstanding) = (self.sessions, self.outstanding);
        let fits = (1..=MAX_SESSIONS).contains(&sessions);
        rule(fits, "sessions", sessions.into(), "from 1 to 16,777,216")?;
        let fits = (1..=MAX_OUTSTANDING).contains(&outstanding);
        rule(fits, "outstanding", outstanding.into(), "from 1 to 65,536")?;
        rule(self.reply_bytes > 0, "reply_bytes", self.reply_bytes, "at least 1")?;
        let whole = self.idle.is_none_or(|idle| idle.subsec_nanos() % 1_000_000 == 0 && !idle.is_zero());
        rule(whole, "idle (ms)", self.idle_ms(), "at least 1 ms, in whole ms")
    }

    /// 0 for never.
    fn idle_ms(&self) -> u64 {
        self.idle.map_or(0, |idle| u64::try_from(idle.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn put(&self, out: &mut BytesMut) {
        out.put_u32_le(self.sessions);
        out.put_u32_le(self.outstanding);
        out.put_u64_le(self.reply_bytes);
        out.put_u64_le(self.idle_ms());
    }
}

impl Table {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, clock: 0, sessions: BTreeMap::new(), by_use: BTreeMap::new(), sum: 0 }
    }

    pub(super) const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Equal tables have equal ones.
    pub(super) fn hash(&self) -> u64 {
        let Limits { sessions, outstanding, reply_bytes, .. } = self.limits;
        let idle = self.limits.idle_ms();
        mix(&[sessions.into(), outstanding.into(), reply_bytes, idle, self.clock, self.sum])
    }

    /// An entry says that it is `time`: sessions that were idle for too long end.
    pub(super) fn advance(&mut self, time: u64) {
        if self.clock == 0 && time > 0 {
            self.begin(time);
        }
        self.clock = self.clock.max(time);
        if self.limits.idle.is_none() {
            return;
        }
        let idle = self.limits.idle_ms();
        while let Some((_, first)) = self.by_use.first_key_value() {
            let first = *first;
            let seen = self.sessions.get(&first).map_or(0, |session| session.seen);
            if self.clock - seen <= idle {
                return;
            }
            self.end(first);
        }
    }

    /// The first time that was ever said: no session was idle before it.
    fn begin(&mut self, time: u64) {
        self.clock = time;
        for (id, session) in &mut self.sessions {
            self.sum = self.sum.wrapping_sub(head(*id, session));
            session.seen = time;
            self.sum = self.sum.wrapping_add(head(*id, session));
        }
    }

    /// The entry at `index` registers a session.
    pub(super) fn register(&mut self, index: u64) -> SessionId {
        let id = SessionId(index);
        let session = Session { used: index, seen: self.clock, ..Session::default() };
        self.sum = self.sum.wrapping_add(head(id, &session));
        self.sessions.insert(id, session);
        self.by_use.insert(index, id);
        self.shrink();
        id
    }

    /// The entry at `index` brings a command.
    pub(super) fn find(&mut self, index: u64, id: SessionId, seq: u64, acknowledged: u64) -> Found {
        let Some(session) = self.sessions.get_mut(&id) else { return Found::UnknownSession };
        self.sum = self.sum.wrapping_sub(head(id, session));
        self.by_use.remove(&session.used);
        self.by_use.insert(index, id);
        session.used = index;
        session.seen = self.clock;
        if acknowledged > session.acknowledged {
            session.acknowledged = acknowledged;
            while let Some(first) = session.replies.first_entry().filter(|first| *first.key() <= acknowledged)
            {
                let (seq, reply) = first.remove_entry();
                session.bytes -= reply.len() as u64;
                self.sum = self.sum.wrapping_sub(line(id, seq, &reply));
            }
        }
        self.sum = self.sum.wrapping_add(head(id, session));
        if seq <= session.acknowledged {
            return Found::Stale;
        }
        if let Some(reply) = session.replies.get(&seq) {
            return Found::Before(reply.clone());
        }
        if seq - session.acknowledged > u64::from(self.limits.outstanding) {
            return Found::TooFarAhead;
        }
        // The first that the client waits for always fits: it would wait for ever, for it acknowledges in order.
        let first = seq - session.acknowledged == 1;
        if session.bytes >= self.limits.reply_bytes && !first {
            return Found::Full;
        }
        Found::Never
    }

    /// A command that was never applied was now, and answered so.
    pub(super) fn record(&mut self, id: SessionId, seq: u64, reply: Bytes) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        self.sum = self.sum.wrapping_add(line(id, seq, &reply));
        session.bytes += reply.len() as u64;
        session.replies.insert(seq, reply);
    }

    /// Ends a session, if there is such a one.
    pub(super) fn end(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.by_use.remove(&session.used);
        self.sum = self.sum.wrapping_sub(head(id, &session));
        for (seq, reply) in &session.replies {
            self.sum = self.sum.wrapping_sub(line(id, *seq, reply));
        }
    }

    /// From now on, other limits.
    pub(super) fn configure(&mut self, limits: Limits) {
        self.limits = limits;
        self.shrink();
        self.advance(0);
    }

    fn shrink(&mut self) {
        while self.sessions.len() > self.limits.sessions as usize {
            let Some((_, first)) = self.by_use.first_key_value() else { return };
            self.end(*first);
        }
    }

    pub(super) fn write(&self, out: &mut dyn Sink) -> Result<(), StateError> {
        let mut head = BytesMut::new();
        head.put_slice(MAGIC);
        head.put_u8(VERSION);
        self.limits.put(&mut head);
        head.put_u64_le(self.clock);
        head.put_u32_le(self.sessions.len() as u32);
        out.put(&head)?;
        for (id, session) in &self.sessions {
            let Session { used, seen, acknowledged, replies, bytes: _ } = session;
            head.clear();
            for number in [id.0, *used, *seen, *acknowledged] {
                head.put_u64_le(number);
            }
            head.put_u32_le(replies.len() as u32);
            out.put(&head)?;
            for (seq, reply) in replies {
                head.clear();
                head.put_u64_le(*seq);
                head.put_u32_le(reply.len() as u32);
                out.put(&head)?;
                out.put(reply)?;
            }
        }
        Ok(())
    }

    /// What [`Table::write`] wrote; `from` is behind it then.
    pub(super) fn read(from: &mut dyn Source) -> Result<Self, StateError> {
        let mut from = Reader(from);
        if from.array::<4>()? != *MAGIC {
            return Err(SnapshotError::Foreign.into());
        }
        match from.array()? {
            [VERSION] => {}
            [other] => return Err(SnapshotError::Version(other).into()),
        }
        let (sessions, outstanding) = (from.u32()?, from.u32()?);
        let (reply_bytes, idle) = (from.u64()?, from.u64()?);
        let idle = (idle > 0).then(|| Duration::from_millis(idle));
        let limits = Limits { sessions, outstanding, reply_bytes, idle };
        limits.validate()?;
        let mut table = Self { clock: from.u64()?, ..Self::new(limits) };
        let count = from.u32()?;
        check(count <= sessions, "more sessions than there may be")?;
        for _ in 0..count {
            table.read_session(&mut from)?;
        }
        Ok(table)
    }

    fn read_session(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        let id = SessionId(from.u64()?);
        let mut session =
            Session { used: from.u64()?, seen: from.u64()?, acknowledged: from.u64()?, ..Session::default() };
        let in_order = self.sessions.last_key_value().is_none_or(|(last, _)| *last < id);
        check(in_order, "sessions out of order")?;
        check(session.used >= id.0 && session.seen <= self.clock, "a session used before it was registered")?;
        check(self.by_use.insert(session.used, id).is_none(), "two sessions used by one entry")?;
        let replies = from.u32()?;
        check(replies <= MAX_OUTSTANDING, "more replies than there may be")?;
        for _ in 0..replies {
            let (seq, len) = (from.u64()?, from.u32()?);
            let last = session.replies.last_key_value().map_or(session.acknowledged, |(last, _)| *last);
            check(seq > last, "replies out of order")?;
            let reply = from.bytes(len)?;
            self.sum = self.sum.wrapping_add(line(id, seq, &reply));
            session.bytes += u64::from(len);
            session.replies.insert(seq, reply);
        }
        self.sum = self.sum.wrapping_add(head(id, &session));
        self.sessions.insert(id, session);
        Ok(())
    }
}

fn check(ok: bool, why: &'static str) -> Result<(), SnapshotError> {
    if ok { Ok(()) } else { Err(SnapshotError::Damaged(why)) }
}

struct Reader<'a>(&'a mut dyn Source);

impl Reader<'_> {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), StateError> {
        let mut at = 0;
        while at < out.len() {
            match self.0.read(&mut out[at..])? {
                0 => return Err(SnapshotError::Short.into()),
                read => at += read,
            }
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, StateError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, StateError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Takes no more memory than what is there, whatever the length says.
    fn bytes(&mut self, len: u32) -> Result<Bytes, StateError> {
        const STEP: usize = 64 << 10;
        let len = len as usize;
        let mut bytes = Vec::with_capacity(len.min(STEP));
        while bytes.len() < len {
            let at = bytes.len();
            bytes.resize(len.min(at + STEP), 0);
            self.fill(&mut bytes[at..])?;
        }
        Ok(bytes.into())
    }
}

fn head(id: SessionId, session: &Session) -> u64 {
    mix(&[1, id.0, session.used, session.seen, session.acknowledged])
}

fn line(id: SessionId, seq: u64, reply: &[u8]) -> u64 {
    let (chunks, rest) = reply.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let text = chunks.iter().fold(0, |hash, chunk| step(hash, u64::from_le_bytes(*chunk)));
    mix(&[2, id.0, seq, reply.len() as u64, text, u64::from_le_bytes(last)])
}

/// A hash of these numbers in this order, the same on every platform and in every release.
pub(super) fn mix(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0, |hash, number| step(hash, *number))
}

/// As in splitmix64, whose finaliser lets each bit of its input change each bit of its output.
const fn step(hash: u64, number: u64) -> u64 {
    let mut z = (hash ^ number).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)).rotate_left(17)
}

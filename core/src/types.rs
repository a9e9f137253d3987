//! The numbers of the protocol, each with a type of its own so that none is taken for another.

use core::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $short:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($short, "{}"), self.0)
            }
        }
    };
}

number! {
    /// A logical clock of leaderships: at most one leader per term (paper §5.1). Below 2⁶³; 0 is before
    /// the first election.
    Term, "T"
}

number! {
    /// A position in the log, from 1; 0 is the empty log (paper §5.3). Below 2⁶³.
    Index, "i"
}

number! {
    /// Who. Never 0, and never used again once its node has left (see [`Membership`](crate::Membership)).
    NodeId, "n"
}

number! {
    /// Which Raft group, of the many that one process may host.
    GroupId, "g"
}

number! {
    /// How many times the store of a node was opened: issued by the store, durable before the first step, so
    /// that nothing from an earlier life is taken for something of this one.
    Incarnation, "inc"
}

number! {
    /// The number of a [`Write`](crate::Write) within an incarnation, from 1, without holes.
    WriteSeq, "w"
}

number! {
    /// The caller's name for a request; the core only hands it back.
    Token, "t"
}

number! {
    /// A moment: µs since an epoch that the driver picks. It must count the time that the machine was
    /// suspended (CLOCK_BOOTTIME on Linux) once leases are in use.
    Instant, "@"
}

impl Term {
    /// Terms are below this, so that adding one never overflows and a hostile one is told at once.
    pub const LIMIT: Self = Self(1 << 63);

    /// The term after this one; `None` at the end of time.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        let next = Self(self.0.saturating_add(1));
        (next < Self::LIMIT).then_some(next)
    }
}

impl Index {
    /// Indexes are below this.
    pub const LIMIT: Self = Self(1 << 63);

    /// The index after this one. Indexes are below 2⁶³ by validation, so it can't overflow.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The index before this one; 0 has none but itself.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The index `count` entries on.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// How many entries lie between, `earlier` left out and `self` included; 0 if `earlier` isn't earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Instant {
    /// This moment, `us` microseconds later.
    #[must_use]
    pub const fn plus(self, us: u64) -> Self {
        Self(self.0.saturating_add(us))
    }

    /// Microseconds since `earlier`; 0 if it isn't earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl WriteSeq {
    /// The write after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// An entry's name: two logs that hold the same one agree on everything up to it (Log Matching, paper §5.3).
///
/// Ordered by term, then index, which is "at least as up-to-date" of paper §5.4.1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LogId {
    /// When a leader appended it.
    pub term: Term,
    /// Where it is.
    pub index: Index,
}

impl LogId {
    /// Before the first entry.
    pub const ZERO: Self = Self { term: Term(0), index: Index(0) };

    /// The entry at `index`, appended in `term`.
    #[must_use]
    pub const fn new(term: Term, index: Index) -> Self {
        Self { term, index }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@T{}", self.index, self.term)
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What must be durable before anything is said that rests on it: Figure 2's currentTerm and votedFor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct HardState {
    /// The latest term that this node has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
}

/// A run of consecutive tokens: a batch of proposals takes one token an entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Tokens {
    /// The first.
    pub first: Token,
    /// How many.
    pub count: u64,
}

impl Tokens {
    /// One token.
    #[must_use]
    pub const fn one(token: Token) -> Self {
        Self { first: token, count: 1 }
    }

    /// Each of them, in order.
    pub fn iter(self) -> impl Iterator<Item = Token> {
        (0..self.count).map(move |i| Token(self.first.0.wrapping_add(i)))
    }
}

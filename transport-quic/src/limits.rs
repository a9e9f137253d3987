//! Bounds and times.

use std::{fmt::Debug, time::Duration};

/// A bound on a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueLimit {
    /// How many messages; at least 1.
    pub messages: usize,
    /// How many bytes of entries, plus 64 a message.
    pub bytes: usize,
}

/// Bounds and times. The defaults suit nodes in one datacentre and elections after a second of silence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// What may wait for one peer in control messages; the oldest are dropped.
    pub control: QueueLimit,
    /// What may wait for one peer in appends; the newest are dropped. One append is taken whatever its size.
    pub append: QueueLimit,
    /// What has waited for a connection for longer than this is not sent any more: its author has said it again.
    pub stale: Duration,
    /// The longest forwarded request, and the longest answer, in bytes; at most 1 GiB.
    pub forward_bytes: usize,
    /// For how long a forwarded request is waited for, and how long it may take to open a bulk stream.
    pub forward_timeout: Duration,
    /// How many forwarded requests of one peer are served at a time; further ones wait where they are asked. At least 1.
    pub forwards: u32,
    /// How many requests to one peer may wait for their turn, beside those that it serves. Further ones are refused as
    /// busy, and so is one whose turn has not come after half of `forward_timeout`.
    pub forwards_waiting: u32,
    /// How many bytes of requests, of all peers together, are held while they are served; beyond it they are refused.
    pub forward_memory: usize,
    /// How many bulk streams each side of a connection may have open at a time, from 0 to 64; further ones are refused.
    /// One that isn't read holds up to `stream_window` bytes at either end.
    pub bulk_streams: u32,
    /// How long an attempt to connect to one address may take.
    pub dial_timeout: Duration,
    /// How long to wait after a first failed attempt; doubled each time, with jitter.
    pub backoff_min: Duration,
    /// How long to wait at most.
    pub backoff_max: Duration,
    /// A connection on which nothing has come for this long is dead.
    pub idle_timeout: Duration,
    /// How often to say something on a quiet connection; less than half of `idle_timeout`, so that one lost packet is no
    /// lost connection.
    pub keep_alive: Duration,
    /// Ask the system whether a peer's port is closed when the peer owes an answer: then its process has ended, and the
    /// connection with it. Turn it off behind a firewall that rejects, rather than lets through, what is not QUIC.
    pub probe: bool,
    /// How often to look whether the certificates of connected peers would still be taken.
    pub recheck: Duration,
    /// How many bytes may be under way on one stream; from 16 KiB to 64 MiB. A connection may have four times as much under
    /// way, and twice as much again for each of `bulk_streams`, since either side may open so many: those that have used up
    /// their own leave room for the others. That is 48 MiB by default.
    pub stream_window: u32,
    /// The size to ask for of the UDP socket's buffers. The operating system may give less; then bursts lose packets,
    /// which are sent again.
    pub socket_buffer: usize,
    /// How many connections may be in their handshake at a time, at least 4. Beyond half of it, addresses have to be proved
    /// first. A quarter is for addresses in the address book.
    pub handshakes: usize,
    /// How many connections one peer may make in ten seconds, at least 1; further ones are refused.
    pub reconnects: u32,
    /// How many peers to keep account of: the address book, and nodes of the cluster that aren't in it.
    pub peers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            control: QueueLimit { messages: 8192, bytes: 4 << 20 },
            append: QueueLimit { messages: 4096, bytes: 64 << 20 },
            stale: Duration::from_millis(500),
            forward_bytes: 4 << 20,
            forward_timeout: Duration::from_secs(5),
            forwards: 256,
            forwards_waiting: 8192,
            forward_memory: 64 << 20,
            bulk_streams: 4,
            dial_timeout: Duration::from_secs(2),
            backoff_min: Duration::from_millis(25),
            backoff_max: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(2),
            keep_alive: Duration::from_millis(400),
            probe: true,
            recheck: Duration::from_secs(10),
            stream_window: 4 << 20,
            socket_buffer: 4 << 20,
            handshakes: 64,
            reconnects: 50,
            peers: 128,
        }
    }
}

/// A limit that can't be kept, or that contradicts another.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the limit {name} is {found}, and must be {rule}")]
pub struct LimitsError {
    /// Which one.
    pub name: &'static str,
    /// What it is.
    pub found: String,
    /// What it has to be.
    pub rule: &'static str,
}

impl Limits {
    /// Do they make sense, alone and together? [`QuicTransport::bind`](crate::QuicTransport::bind) asks the same.
    ///
    /// # Errors
    /// The first one that doesn't.
    pub fn check(&self) -> Result<(), LimitsError> {
        const HOUR: Duration = Duration::from_secs(3600);
        let times = [
            ("forward_timeout", self.forward_timeout),
            ("dial_timeout", self.dial_timeout),
            ("backoff_min", self.backoff_min),
            ("idle_timeout", self.idle_timeout),
            ("keep_alive", self.keep_alive),
            ("recheck", self.recheck),
        ];
        for (name, time) in times {
            let fits = (Duration::from_millis(1)..=24 * HOUR).contains(&time);
            rule(fits, name, time, "from a millisecond to a day")?;
        }
        rule(
            self.keep_alive < self.idle_timeout / 2,
            "keep_alive",
            self.keep_alive,
            "less than half of idle_timeout",
        )?;
        rule(
            (self.backoff_min..=24 * HOUR).contains(&self.backoff_max),
            "backoff_max",
            self.backoff_max,
            "from backoff_min to a day",
        )?;
        for (name, queue) in [("control", self.control), ("append", self.append)] {
            rule(queue.messages > 0, name, queue.messages, "at least one message")?;
        }
        let window = (16 << 10..=64 << 20).contains(&self.stream_window);
        rule(window, "stream_window", self.stream_window, "from 16 KiB to 64 MiB")?;
        rule(self.bulk_streams <= 64, "bulk_streams", self.bulk_streams, "at most 64")?;
        rule((1..=1 << 16).contains(&self.forwards), "forwards", self.forwards, "from 1 to 65536")?;
        rule(self.forward_bytes <= 1 << 30, "forward_bytes", self.forward_bytes, "at most 1 GiB")?;
        rule((4..=1 << 16).contains(&self.handshakes), "handshakes", self.handshakes, "from 4 to 65536")?;
        rule(self.reconnects > 0, "reconnects", self.reconnects, "at least 1")
    }
}

fn rule(kept: bool, name: &'static str, found: impl Debug, rule: &'static str) -> Result<(), LimitsError> {
    if kept { Ok(()) } else { Err(LimitsError { name, found: format!("{found:?}"), rule }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_make_no_sense_are_told_by_name() {
        assert_eq!(Limits::default().check(), Ok(()));
        let wrong = |change: &dyn Fn(&mut Limits)| {
            let mut limits = Limits::default();
            change(&mut limits);
            limits.check().unwrap_err()
        };
        let error = wrong(&|limits| limits.keep_alive = limits.idle_timeout / 2);
        assert_eq!(
            error.to_string(),
            "the limit keep_alive is 1s, and must be less than half of idle_timeout"
        );
        for (name, error) in [
            ("idle_timeout", wrong(&|limits| limits.idle_timeout = Duration::ZERO)),
            ("idle_timeout", wrong(&|limits| limits.idle_timeout = Duration::MAX)),
            ("recheck", wrong(&|limits| limits.recheck = Duration::ZERO)),
            ("backoff_max", wrong(&|limits| limits.backoff_max = Duration::from_millis(1))),
            ("control", wrong(&|limits| limits.control.messages = 0)),
            ("append", wrong(&|limits| limits.append.messages = 0)),
            ("stream_window", wrong(&|limits| limits.stream_window = 100)),
            ("stream_window", wrong(&|limits| limits.stream_window = u32::MAX)),
            ("bulk_streams", wrong(&|limits| limits.bulk_streams = 65)),
            ("forwards", wrong(&|limits| limits.forwards = 0)),
            ("forward_bytes", wrong(&|limits| limits.forward_bytes = usize::MAX)),
            ("handshakes", wrong(&|limits| limits.handshakes = 3)),
            ("reconnects", wrong(&|limits| limits.reconnects = 0)),
        ] {
            assert_eq!(error.name, name, "{error}");
        }
    }
}

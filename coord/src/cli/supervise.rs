//! What `quorate dev` and its nodes say to each other.
//!
//! A node under supervision has two pipes. On stdout it says, in lines, what happens to it ([`Event`]). Its stdin says
//! nothing: when it ends, its supervisor wants the node to stop, or is gone itself, however it went. So no node outlives its
//! supervisor, not even one that was ended by SIGKILL.

use std::{
    fmt,
    io::{self, Read as _, Write as _},
    str::FromStr,
    time::Duration,
};

use tokio::sync::oneshot;

/// For how long a node may stop in an orderly way once its supervisor is gone.
/// Longer than the longest orderly stop (requests 2 s, the node 1 s, its farewell 1 s, the last spans 1 s), and shorter than what the
/// supervisor gives it (6 s).
const PATIENCE: Duration = Duration::from_millis(5500);

/// What a node tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// It serves clients.
    Ready,
    /// It has heard of a leader in a term, or has lost it.
    Leader {
        /// The term.
        term: u64,
        /// Who, if anybody is known.
        leader: Option<u64>,
    },
}

impl Event {
    /// Says it to the supervisor. One that is gone is not this function's business.
    pub(crate) fn tell(self) {
        let mut out = io::stdout().lock();
        let _gone = writeln!(out, "{self}").and_then(|()| out.flush());
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Leader { term, leader } => write!(f, "leader {term} {}", leader.unwrap_or(0)),
        }
    }
}

impl FromStr for Event {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["ready"] => Ok(Self::Ready),
            ["leader", term, leader] => {
                let leader = leader.parse().map_err(|_| ())?;
                Ok(Self::Leader {
                    term: term.parse().map_err(|_| ())?,
                    leader: Some(leader).filter(|id| *id > 0),
                })
            }
            _ => Err(()),
        }
    }
}

/// Watches stdin, on a thread of its own: is told when it ends. Should the node not have stopped in good time after that,
/// the process is ended all the same.
pub(crate) fn supervisor_gone() -> io::Result<oneshot::Receiver<()>> {
    let (gone, told) = oneshot::channel();
    std::thread::Builder::new().name("supervisor".into()).spawn(move || {
        let mut byte = [0];
        // Neither an error nor a byte that nobody should send leaves a supervisor to speak of.
        let _ended = io::stdin().read(&mut byte);
        let _node = gone.send(());
        std::thread::sleep(PATIENCE);
        std::process::exit(1);
    })?;
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let events = [
            Event::Ready,
            Event::Leader { term: 7, leader: Some(2) },
            Event::Leader { term: u64::MAX, leader: None },
        ];
        for event in events {
            assert_eq!(event.to_string().parse(), Ok(event));
        }
        for line in ["", "readyy", "leader", "leader 1", "leader x 2", "leader 1 2 3"] {
            assert_eq!(line.parse::<Event>(), Err(()), "{line}");
        }
    }
}

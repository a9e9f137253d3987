//! What the store costs: on the disk, in time, in memory, in space.
//!
//! One file for each question ([`commits`], [`groups`], [`layouts`], [`open`], [`snapshots`], [`space`]), with a small program of the same name under
//! `src/bin`; the other files are what they share. Files are made in a temporary directory under `--dir` (default:
//! the current directory), which should be on the disk that is meant, and are removed at the end.
//!
//! Times on a shared machine wander. So what is compared takes turns, in another order each round; what is reported is the
//! median over the rounds of the ratio to the first row *of that round*, with the quartiles of that ratio; and
//! beside the times there is what does not wander: writes, bytes and syncs, counted between the database and the file.

pub mod commits;
pub mod groups;
pub mod layouts;
pub mod open;
pub mod snapshots;
pub mod space;

mod ahead;
mod bare;
mod counting;
mod floor;
mod folder;
mod minted;
mod process;
mod stored;
mod turns;
mod watermark;

use anyhow::{Result, bail};

/// What a commit is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Case {
    /// Groups in one commit, each with as many entries.
    groups: usize,
    /// Entries of each group.
    entries: usize,
    /// Bytes of each entry.
    payload: usize,
}

impl Case {
    /// Entries, bytes and groups, as on a command line.
    fn parse(text: &str) -> Result<Self> {
        let numbers = text.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
        match *numbers.as_slice() {
            [entries, payload, groups] if numbers.iter().all(|number| *number > 0) => {
                Ok(Self { groups, entries, payload })
            }
            _ => bail!("three numbers above 0, such as 100,256,1"),
        }
    }

    fn payload_bytes(self) -> usize {
        self.groups * self.entries * self.payload
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { groups, entries, payload } = self;
        if *groups > 1 {
            write!(f, "{groups} groups x ")?;
        }
        write!(f, "{entries} x {payload} B a commit")
    }
}

/// The `n`th entry: never the same twice.
fn payload(n: u64, bytes: usize) -> Vec<u8> {
    let mut payload = vec![n as u8; bytes];
    let number = n.to_le_bytes();
    let shared = number.len().min(bytes);
    payload[..shared].copy_from_slice(&number[..shared]);
    payload
}

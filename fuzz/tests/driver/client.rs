//! Clients, what they saw, and whether that can be.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering::SeqCst,
    time::Duration,
};

use quorate_core::NodeId;
use quorate_runtime_tokio::{Consistency, ProposeError};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{Dice, cluster::Cluster};

/// All that clients saw, in no order.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct History(Vec<Seen>);

/// One call, from its beginning to its end, in µs.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    from: u64,
    to: u64,
    what: What,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum What {
    /// This word was written, and is in this place.
    Wrote(String, usize),
    /// It was or will be written, or never.
    Unknown(String),
    /// It certainly was not.
    Refused(String),
    /// These are all the words.
    Read(Vec<String>),
}

/// A client at work, until the cluster says that it is over.
pub(crate) fn start(cluster: &Cluster, mut dice: Dice, client: u64) -> JoinHandle<History> {
    let (nodes, over, size) = (cluster.nodes.clone(), cluster.over.clone(), cluster.size());
    let begin = Instant::now();
    let time = move || u64::try_from(begin.elapsed().as_micros()).unwrap();
    tokio::spawn(async move {
        let mut history = Vec::new();
        let mut number = 0;
        while !over.load(SeqCst) {
            sleep(dice.micros(150_000)).await;
            let node = nodes.lock().unwrap().get(&NodeId(1 + dice.below(size))).cloned();
            let Some(node) = node else { continue };
            let from = time();
            let what = if dice.chance(60) {
                number += 1;
                let word = format!("{client}.{number}");
                match node.propose(word.clone()).await {
                    Ok(place) => What::Wrote(word, String::from_utf8_lossy(&place).parse().unwrap()),
                    Err(ProposeError::Unknown { .. }) => What::Unknown(word),
                    Err(_) => What::Refused(word),
                }
            } else {
                let consistency =
                    if dice.chance(50) { Consistency::Lease } else { Consistency::Linearizable };
                match node.read_with(consistency, |words| words.0.clone()).await {
                    Ok(words) => What::Read(words),
                    Err(_) => continue,
                }
            };
            history.push(Seen { from, to: time(), what });
            // A node whose disk has crashed under it answers at once.
            sleep(Duration::from_millis(1)).await;
        }
        History(history)
    })
}

/// Can it be? `words` is what all nodes have in the end: the order in which everything happened.
///
/// The words are distinct and only ever added, so each call that ended well says how many there were at its moment: after it, for
/// a write; at it, for a read. There is one order of all that respects time exactly if these numbers never go back from a call
/// that had ended to one that began later.
pub(crate) fn check(history: &History, words: &[String]) -> Result<(), String> {
    let mut places = BTreeMap::new();
    for (place, word) in words.iter().enumerate() {
        if places.insert(word, place + 1).is_some() {
            return Err(format!("{word} is there twice"));
        }
    }
    let mut moments = Vec::new();
    for Seen { from, to, what } in &history.0 {
        match what {
            What::Wrote(word, place) => match places.get(word) {
                Some(found) if found == place => moments.push((*from, *to, *place, true)),
                Some(found) => return Err(format!("{word} was said to be at {place} and is at {found}")),
                None => return Err(format!("{word} was acknowledged and is lost")),
            },
            What::Unknown(_) => {}
            What::Refused(word) if places.contains_key(word) => {
                return Err(format!("{word} was refused, and is there"));
            }
            What::Refused(_) => {}
            What::Read(read) if words.starts_with(read) => moments.push((*from, *to, read.len(), false)),
            What::Read(read) => return Err(format!("a read saw {:?} last, which never was", read.last())),
        }
    }
    // In the order of their beginnings, with the most that had been seen by calls that ended before.
    let mut ends: Vec<_> = moments.iter().map(|&(_, to, count, _)| (to, count)).collect();
    ends.sort_unstable();
    moments.sort_unstable();
    let (mut ended, mut most) = (ends.iter().peekable(), 0);
    for (from, to, count, wrote) in moments {
        while let Some((_, seen)) = ended.next_if(|(end, _)| *end < from) {
            most = most.max(*seen);
        }
        if count < most + usize::from(wrote) {
            return Err(format!("the call from {from} to {to} µs is at {count}, but {most} was seen before"));
        }
    }
    Ok(())
}

impl History {
    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many calls ended well, and how many unknown.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let count = |of: fn(&What) -> bool| self.0.iter().filter(|seen| of(&seen.what)).count() as u64;
        (
            count(|what| matches!(what, What::Wrote(..) | What::Read(_))),
            count(|what| matches!(what, What::Unknown(_))),
        )
    }

    fn acknowledged(&self) -> BTreeSet<&String> {
        let mut words = BTreeSet::new();
        for seen in &self.0 {
            if let What::Wrote(word, _) = &seen.what {
                words.insert(word);
            }
        }
        words
    }

    pub(crate) fn without_a_word(&self, words: &[String]) -> Vec<String> {
        let acknowledged = self.acknowledged();
        let last = words.iter().rposition(|word| acknowledged.contains(word)).unwrap();
        words.iter().enumerate().filter(|(place, _)| *place != last).map(|(_, word)| word.clone()).collect()
    }

    pub(crate) fn with_a_word_twice(&self, words: &[String]) -> Vec<String> {
        words.iter().chain(words.first()).cloned().collect()
    }

    /// The last read sees one word less than the first that had ended when it began.
    pub(crate) fn with_a_stale_read(&self) -> Self {
        let mut wrong = self.clone();
        let read =
            wrong.0.iter_mut().filter(|seen| matches!(&seen.what, What::Read(read) if read.len() > 50));
        let read = read.max_by_key(|seen| seen.from).unwrap();
        let What::Read(words) = &mut read.what else { unreachable!() };
        words.truncate(10);
        wrong
    }

    pub(crate) fn with_an_invented_read(&self) -> Self {
        let mut wrong = self.clone();
        let read = wrong.0.iter_mut().find_map(|seen| match &mut seen.what {
            What::Read(read) if !read.is_empty() => Some(read),
            _ => None,
        });
        read.unwrap().push("never written".to_owned());
        wrong
    }
}

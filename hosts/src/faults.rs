//! What goes wrong, drawn from a seed: every kind once before any comes again.

use std::{fmt, time::Duration};

use anyhow::Result;
use clap::ValueEnum;

use crate::{cluster::Cluster, net::Link, random::Random};

/// What may go wrong. Where a role is named, it is the one that a node has when the fault begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The leader alone on its side of a partition.
    IsolateLeader,
    /// A follower alone.
    IsolateFollower,
    /// As near to half the nodes on either side as can be.
    Halves,
    /// Two nodes don't reach each other; all others reach both.
    CutPair,
    /// Nothing that the leader sends arrives; it hears all others.
    LeaderMute,
    /// The leader hears nothing; it is heard.
    LeaderDeaf,
    /// Nothing that a follower sends arrives.
    FollowerMute,
    /// A follower hears nothing: it can't depose the leader that the others hear.
    FollowerDeaf,
    /// Everything between nodes arrives 200 ms later.
    Delay,
    /// One packet of twenty between nodes is lost.
    Loss,
    /// Both.
    DelayAndLoss,
    /// The leader's links fail and heal, again and again.
    Flapping,
    /// The leader's process is stopped (SIGSTOP), and goes on.
    StopLeader,
    /// A follower's is.
    StopFollower,
    /// The leader's process is killed (SIGKILL), and started again at the end.
    KillLeader,
    /// A follower's is.
    KillFollower,
    /// All are.
    KillAll,
    /// A follower's is, while packets are late and lost.
    KillInBadWeather,
}

/// All of them.
pub const KINDS: [Kind; 18] = [
    Kind::IsolateLeader,
    Kind::IsolateFollower,
    Kind::Halves,
    Kind::CutPair,
    Kind::LeaderMute,
    Kind::LeaderDeaf,
    Kind::FollowerMute,
    Kind::FollowerDeaf,
    Kind::Delay,
    Kind::Loss,
    Kind::DelayAndLoss,
    Kind::Flapping,
    Kind::StopLeader,
    Kind::StopFollower,
    Kind::KillLeader,
    Kind::KillFollower,
    Kind::KillAll,
    Kind::KillInBadWeather,
];

impl Kind {
    /// Does the leader stay in touch with a majority, without a packet late or lost? Then nobody has a reason to depose it.
    #[must_use]
    pub const fn spares_leader(self) -> bool {
        matches!(
            self,
            Self::IsolateFollower
                | Self::FollowerMute
                | Self::FollowerDeaf
                | Self::StopFollower
                | Self::KillFollower
        )
    }
}

const CUT: Link = Link { cut: true, loss: 0.0, delay: Duration::ZERO };
const LATE: Link = Link { cut: false, loss: 0.0, delay: Duration::from_millis(200) };
const LOSSY: Link = Link { cut: false, loss: 0.05, delay: Duration::ZERO };
const BAD: Link = Link { cut: false, loss: 0.05, delay: Duration::from_millis(200) };

/// How long links that flap are as they are.
const FLAP: Duration = Duration::from_millis(400);

/// The next to come.
#[derive(Debug)]
pub struct Bag {
    kinds: Vec<Kind>,
    random: Random,
}

impl Bag {
    /// In an order that follows from the seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { kinds: Vec::new(), random: Random::new(seed) }
    }

    /// The next kind, and how long it lasts.
    pub fn next(&mut self, least: Duration, most: Duration) -> (Kind, Duration) {
        if self.kinds.is_empty() {
            self.kinds = KINDS.to_vec();
            self.random.shuffle(&mut self.kinds);
        }
        let millis = self.random.below((most.saturating_sub(least)).as_millis() as u64 + 1);
        let kind = self.kinds.pop().unwrap_or(Kind::IsolateLeader);
        (kind, least + Duration::from_millis(millis))
    }

    /// Lets it happen for so long. Nothing is healed at the end.
    ///
    /// # Errors
    /// If a process has ended by itself, or a signal can't be sent.
    pub async fn strike(&mut self, cluster: &mut Cluster, kind: Kind, lasts: Duration) -> Result<()> {
        let count = cluster.nodes.len();
        let leader = match cluster.leader().await {
            Some(leader) => leader,
            None => self.random.index(count),
        };
        let followers: Vec<usize> = (0..count).filter(|node| *node != leader).collect();
        let follower = if followers.is_empty() { leader } else { *self.random.pick(&followers) };
        let one_way = |cluster: &Cluster, node: usize, outwards: bool| {
            for other in (0..count).filter(|other| *other != node) {
                let (from, to) = if outwards { (node, other) } else { (other, node) };
                cluster.net.set(from, to, CUT);
            }
        };
        match kind {
            Kind::IsolateLeader => cluster.net.set_around(leader, CUT),
            Kind::IsolateFollower => cluster.net.set_around(follower, CUT),
            Kind::Halves => {
                let mut nodes: Vec<usize> = (0..count).collect();
                self.random.shuffle(&mut nodes);
                let (one, other) = nodes.split_at(count / 2);
                for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))) {
                    cluster.net.set(a, b, CUT);
                    cluster.net.set(b, a, CUT);
                }
            }
            Kind::CutPair => {
                cluster.net.set(leader, follower, CUT);
                cluster.net.set(follower, leader, CUT);
            }
            Kind::LeaderMute => one_way(cluster, leader, true),
            Kind::LeaderDeaf => one_way(cluster, leader, false),
            Kind::FollowerMute => one_way(cluster, follower, true),
            Kind::FollowerDeaf => one_way(cluster, follower, false),
            Kind::Delay => cluster.net.set_all(LATE),
            Kind::Loss => cluster.net.set_all(LOSSY),
            Kind::DelayAndLoss => cluster.net.set_all(BAD),
            Kind::Flapping => {
                let end = tokio::time::Instant::now() + lasts;
                while tokio::time::Instant::now() < end {
                    cluster.net.set_around(leader, CUT);
                    tokio::time::sleep(FLAP).await;
                    cluster.net.heal();
                    tokio::time::sleep(FLAP).await;
                }
                return Ok(());
            }
            Kind::StopLeader => cluster.nodes[leader].stop()?,
            Kind::StopFollower => cluster.nodes[follower].stop()?,
            Kind::KillLeader => cluster.nodes[leader].kill()?,
            Kind::KillFollower => cluster.nodes[follower].kill()?,
            Kind::KillAll => cluster.nodes.iter_mut().try_for_each(crate::cluster::Node::kill)?,
            Kind::KillInBadWeather => {
                cluster.net.set_all(BAD);
                cluster.nodes[follower].kill()?;
            }
        }
        tokio::time::sleep(lasts).await;
        Ok(())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IsolateLeader => "leader cut off",
            Self::IsolateFollower => "follower cut off",
            Self::Halves => "two halves",
            Self::CutPair => "leader and follower cut",
            Self::LeaderMute => "leader sends in vain",
            Self::LeaderDeaf => "leader hears nothing",
            Self::FollowerMute => "follower sends in vain",
            Self::FollowerDeaf => "follower hears nothing",
            Self::Delay => "200 ms delay",
            Self::Loss => "5 % loss",
            Self::DelayAndLoss => "200 ms delay, 5 % loss",
            Self::Flapping => "leader's links flap",
            Self::StopLeader => "leader stopped",
            Self::StopFollower => "follower stopped",
            Self::KillLeader => "leader killed",
            Self::KillFollower => "follower killed",
            Self::KillAll => "all killed",
            Self::KillInBadWeather => "follower killed, bad net",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_before_any_comes_again() {
        let mut bag = Bag::new(7);
        let [least, most] = [4, 9].map(Duration::from_secs);
        for _round in 0..3 {
            let drawn: Vec<_> = KINDS.iter().map(|_| bag.next(least, most)).collect();
            assert!(KINDS.iter().all(|kind| drawn.iter().any(|(drawn, _)| drawn == kind)), "{drawn:?}");
            assert!(drawn.iter().all(|(_, lasts)| (least..=most).contains(lasts)));
        }
        let again: Vec<_> = (0..5).map(|_| Bag::new(7).next(least, most)).collect();
        assert!(again.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

//! Looks at the groups now and then, for the gauges.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use quorate_core::GroupId;
use tokio::time::{MissedTickBehavior, interval};

use super::{Port, Shared};
use crate::metrics::{Gauges, GroupSample, QueueSample};

/// How often.
const EVERY: Duration = Duration::from_secs(1);

/// How each group was, and after which of its turns.
type Seen = BTreeMap<GroupId, (u64, GroupSample)>;

/// Runs until the host is gone.
pub(super) async fn run(host: Weak<Shared>, mut gauges: Gauges) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = Seen::new();
    loop {
        ticks.tick().await;
        let Some((ports, store)) = host.upgrade().map(|host| (host.groups.all(), host.store_queue())) else {
            return;
        };
        seen = look(seen, ports).await;
        gauges.tell(seen.iter().map(|(group, (_, sample))| (*group, sample)), store as u64);
    }
}

/// How they are now. A group in which nothing has happened since is not asked again: thousands of idle ones sleep on. But if
/// something waited in it then, it may be done by now without a turn of its driver: by the state machine, say.
async fn look(mut seen: Seen, ports: Vec<(GroupId, Arc<dyn Port>)>) -> Seen {
    let mut now = Seen::new();
    for (group, port) in ports {
        // Before it is asked: what happens meanwhile is for the next time.
        let turns = port.turns();
        let sample = match seen.remove(&group) {
            Some((before, sample)) if before == turns && sample.queues == QueueSample::default() => {
                Some(sample)
            }
            _ => port.sample().await,
        };
        now.extend(sample.map(|sample| (group, (turns, sample))));
    }
    now
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::host::stub::Stub;

    #[tokio::test]
    async fn an_idle_group_is_not_woken_to_be_looked_at() {
        let (idle, busy) = (Arc::new(Stub::default()), Arc::new(Stub::default()));
        let ports = || -> Vec<(GroupId, Arc<dyn Port>)> {
            vec![(GroupId(1), idle.clone()), (GroupId(2), busy.clone())]
        };
        let mut seen = Seen::new();
        for _ in 0..5 {
            busy.turns.fetch_add(1, Relaxed);
            seen = look(seen, ports()).await;
        }
        assert_eq!((idle.asked.load(Relaxed), busy.asked.load(Relaxed)), (1, 5));
        // It is still told about; one that is gone is not.
        assert_eq!(seen[&GroupId(1)].1.term, 1);
        assert_eq!(seen[&GroupId(2)].1.term, 5);
        seen = look(seen, ports().split_off(1)).await;
        assert!(!seen.contains_key(&GroupId(1)));
    }

    #[tokio::test]
    async fn what_waited_is_looked_at_again_until_nothing_does() {
        let port = Arc::new(Stub::default());
        let ports = || -> Vec<(GroupId, Arc<dyn Port>)> { vec![(GroupId(1), port.clone())] };
        port.reads.store(3, Relaxed);
        let mut seen = look(Seen::new(), ports()).await;
        assert_eq!(seen[&GroupId(1)].1.queues.reads, 3);
        // They are answered without a turn.
        port.reads.store(0, Relaxed);
        for _ in 0..3 {
            seen = look(seen, ports()).await;
            assert_eq!(seen[&GroupId(1)].1.queues.reads, 0);
        }
        assert_eq!(port.asked.load(Relaxed), 2);
    }
}

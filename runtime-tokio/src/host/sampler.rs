//! Looks at the groups now and then, for the gauges.

use std::{collections::BTreeMap, sync::Weak, time::Duration};

use quorate_core::GroupId;
use tokio::time::{MissedTickBehavior, interval};

use super::Shared;
use crate::metrics::{Gauges, GroupSample};

/// How often.
const EVERY: Duration = Duration::from_secs(1);

/// Runs until the host is gone. A group in which nothing has happened since is not asked again: thousands of idle ones sleep
/// on.
pub(super) async fn run(host: Weak<Shared>, mut gauges: Gauges) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen: BTreeMap<GroupId, (u64, GroupSample)> = BTreeMap::new();
    loop {
        ticks.tick().await;
        let Some((ports, store)) = host.upgrade().map(|host| (host.groups.all(), host.store_queue())) else {
            return;
        };
        let mut now = BTreeMap::new();
        for (group, port) in ports {
            let before = seen.remove(&group);
            // Before it is asked: what happens meanwhile is for the next time.
            let turns = port.turns();
            let sample = match before {
                Some((seen, sample)) if seen == turns => Some(sample),
                _ => port.sample().await,
            };
            now.extend(sample.map(|sample| (group, (turns, sample))));
        }
        gauges.tell(now.iter().map(|(group, (_, sample))| (*group, sample)), store as u64);
        seen = now;
    }
}

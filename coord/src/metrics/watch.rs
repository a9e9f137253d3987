//! What is looked at now and then.

use std::{sync::Arc, time::Duration};

use metrics::gauge;
use quorate_runtime_tokio::Node;
use quorate_transport_quic::QuicTransport;
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use super::{names, peers};
use crate::machine::Machine;

/// How often.
const EVERY: Duration = Duration::from_secs(1);

/// Looks until it is dropped.
#[derive(Debug)]
pub struct Watched {
    task: JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Looks at the process, the store and the transport once a second, and tells the recorder what it sees.
#[must_use = "it ends when it is dropped"]
pub fn watch(node: Node<Machine>, transport: Option<Arc<QuicTransport>>) -> Watched {
    let task = tokio::spawn(async move {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            #[cfg(target_os = "linux")]
            super::process::tell();
            if let Some(transport) = &transport {
                peers::tell(node.id(), &transport.stats());
            }
            // A node that has stopped has nothing new to tell.
            if let Ok((revision, bytes)) =
                node.read_stale(|machine| (machine.revision(), machine.bytes())).await
            {
                let label = node.id().0.to_string();
                gauge!(names::REVISION.name, "node" => label.clone()).set(revision as f64);
                gauge!(names::KV_BYTES.name, "node" => label).set(bytes as f64);
            }
        }
    });
    Watched { task }
}

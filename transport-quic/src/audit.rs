//! Looks again at those that are connected: their certificates may have expired, or the authorities that this node takes, or
//! the list of those allowed, may have changed since.

use std::sync::Arc;

use quorate_core::NodeId;
use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

use crate::{
    code::Code,
    peer::{Link, Peer},
    shared::Shared,
};

/// Runs until the transport stops.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut ticks = interval(shared.limits.recheck);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = ticks.tick() => all(&shared),
        }
    }
}

/// Closes the connections that would not be made today.
pub(crate) fn all(shared: &Shared) {
    for peer in shared.all_peers() {
        if let Some(link) = peer.link() {
            check(shared, &peer, &link);
        }
    }
}

/// Closes this connection if it would not be made today; says whether it may stay. Call it once the connection is in use:
/// a change is looked for either here, or by whoever makes it.
pub(crate) fn check(shared: &Shared, peer: &Peer, link: &Link) -> bool {
    let (code, why, counter) = if !shared.allows(peer.id) {
        (Code::NotAllowed, not_allowed(peer.id), &shared.disallowed)
    } else if let Err(err) = shared.credentials().still_accept(link, shared) {
        let why = format!("the certificate shown on this connection would not be taken any more: {err}");
        (Code::Certificate, why, &shared.outdated)
    } else {
        return true;
    };
    if link.connection.close_reason().is_none() {
        counter.add(1);
        info!(peer = %peer.id, from = %link.connection.remote_address(), "closing a connection: {why}");
        link.connection.close(code.number(), why.as_bytes());
    }
    false
}

/// Why a node that isn't on the list is not connected.
pub(crate) fn not_allowed(node: NodeId) -> String {
    format!("node {node} is not on the list of nodes that are allowed here")
}

//! Keeps a connection to one peer: dials while there is none, ever more patiently.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use quinn::{Connection, Endpoint};
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::{
    code::{Cause, Code},
    link,
    names::node_name,
    options::Limits,
    peer::Peer,
    shared::Shared,
    tls,
};

/// Runs until the transport stops.
pub(crate) async fn keep_connected(shared: Arc<Shared>, endpoint: Endpoint, peer: Arc<Peer>) {
    tokio::select! {
        () = shared.stop.cancelled() => {}
        () = dial_forever(&shared, &endpoint, &peer) => {}
    }
}

async fn dial_forever(shared: &Arc<Shared>, endpoint: &Endpoint, peer: &Arc<Peer>) {
    let mut backoff = Backoff::new(&shared.limits);
    loop {
        peer.disconnected().await;
        if peer.was_steady() {
            backoff.reset();
        } else {
            tokio::select! {
                () = peer.connected() => continue,
                () = sleep(backoff.pause()) => {}
            }
        }
        // If the peer gets through first, its connection is used and this attempt is given up. But one that has succeeded
        // is never just given up: the peer may have taken it in exchange for its own already, and both would be lost.
        let dialled = tokio::select! {
            biased;
            dialled = timeout(shared.limits.dial_timeout, dial(shared, endpoint, peer)) => dialled,
            () = peer.connected() => continue,
        };
        match dialled {
            Ok(Some(connection)) => {
                link::adopt(shared, peer, connection, shared.id);
            }
            Ok(None) => {}
            Err(_) => debug!(peer = %peer.id, address = ?peer.address, "no answer"),
        }
    }
}

/// One attempt. Has said what went wrong, if something did.
async fn dial(shared: &Shared, endpoint: &Endpoint, peer: &Peer) -> Option<Connection> {
    let address = peer.address?;
    const CANT: &str = "can't connect to the peer";
    let connecting =
        endpoint.connect_with(shared.client.clone(), address, &node_name(shared.cluster, peer.id));
    let connection = match connecting {
        Ok(connecting) => connecting.await,
        Err(err) => {
            peer.warn(address, CANT, &err);
            return None;
        }
    };
    let connection = match connection {
        Ok(connection) => connection,
        Err(err) => {
            match Cause::of(&err) {
                Cause::Us | Cause::Peer => peer.warn(address, CANT, &err),
                Cause::Nobody => debug!(peer = %peer.id, %address, "no connection: {err}"),
            }
            return None;
        }
    };
    // TLS has checked the name already, but a certificate for several names would have passed.
    let refused = match tls::peer_of(&connection) {
        Ok(found) if found == (shared.cluster, peer.id) => return Some(connection),
        Ok((cluster, node)) => format!("its certificate is for node {node} of cluster {cluster}"),
        Err(err) => err.to_string(),
    };
    peer.warn(address, CANT, &refused);
    connection.close(Code::Identity.number(), refused.as_bytes());
    None
}

/// How long to wait before the next attempt.
#[derive(Debug)]
struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
    random: RandomState,
    count: u64,
}

impl Backoff {
    fn new(limits: &Limits) -> Self {
        let (min, max) = (limits.backoff_min, limits.backoff_max);
        Self { min, max, next: min, random: RandomState::new(), count: 0 }
    }

    fn reset(&mut self) {
        self.next = self.min;
    }

    /// Between half of the current value and all of it, so that nodes that failed together don't try again together.
    fn pause(&mut self) -> Duration {
        let most = self.next;
        self.next = most.saturating_mul(2).min(self.max);
        self.count += 1;
        let share = (self.random.hash_one(self.count) % 1024) as u32;
        most / 2 + most / 2 * share / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_limit_and_start_again() {
        let limits = Limits::default();
        let mut backoff = Backoff::new(&limits);
        let mut most = limits.backoff_min;
        for _ in 0..20 {
            let pause = backoff.pause();
            assert!(pause >= most / 2 && pause <= most, "{pause:?} of {most:?}");
            most = (most * 2).min(limits.backoff_max);
        }
        assert_eq!(most, limits.backoff_max);
        backoff.reset();
        assert!(backoff.pause() <= limits.backoff_min);
    }
}

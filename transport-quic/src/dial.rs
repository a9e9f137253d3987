//! Keeps a connection to one peer: dials while there is none, ever more patiently.

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use quinn::{Connection, Endpoint};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::debug;

use crate::{
    address::{PeerAddress, reachable},
    code::{Cause, Code},
    limits::Limits,
    link,
    names::node_name,
    peer::{Link, Peer},
    shared::Shared,
    tls,
};

/// Sees to it that the peer is dialled from now on, whenever it has an address and no connection.
pub(crate) fn start(shared: &Arc<Shared>, endpoint: &Endpoint, peer: &Arc<Peer>) {
    if peer.needs_dialler() {
        let dialler = Dialler {
            shared: shared.clone(),
            endpoint: endpoint.clone(),
            peer: peer.clone(),
            lookup: None,
            last: None,
        };
        shared.tasks.spawn(dialler.keep_connected());
    }
}

struct Dialler {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    peer: Arc<Peer>,
    /// A look-up that takes its time. A system's resolver can't be interrupted, so there is never a second one.
    lookup: Option<(PeerAddress, JoinHandle<io::Result<Vec<SocketAddr>>>)>,
    /// Where the peer was reached last; tried first.
    last: Option<SocketAddr>,
}

const CANT: &str = "can't connect to the peer";

impl Dialler {
    /// Runs until the transport stops, or the peer is forgotten.
    async fn keep_connected(mut self) {
        let (stop, forgotten) = (self.shared.stop.clone(), self.peer.forgotten.clone());
        tokio::select! {
            () = stop.cancelled() => {}
            () = forgotten.cancelled() => {}
            () = self.dial_forever() => {}
        }
    }

    async fn dial_forever(&mut self) {
        let peer = self.peer.clone();
        let mut backoff = Backoff::new(&self.shared.limits);
        let mut listens = peer.address();
        loop {
            peer.disconnected().await;
            if peer.was_steady() {
                backoff.reset();
            } else {
                tokio::select! {
                    () = peer.connected() => continue,
                    _ = listens.changed() => backoff.reset(),
                    () = sleep(backoff.pause()) => {}
                }
            }
            let address = listens.borrow_and_update().clone();
            let Some(address) = address else {
                // It has to dial, until it is in the address book.
                let _peer_is_here = listens.changed().await;
                backoff.reset();
                continue;
            };
            // If the peer gets through first, its connection is used and this attempt is given up. But one that has succeeded
            // is never just given up: the peer may have taken it in exchange for its own already, and both would be lost.
            tokio::select! {
                biased;
                () = self.attempt(&address) => {}
                () = peer.connected() => {}
                _ = listens.changed() => backoff.reset(),
            }
        }
    }

    /// Tries all that the address means, one after the other. Has said what went wrong, if something did.
    async fn attempt(&mut self, address: &PeerAddress) {
        if !self.shared.allows(self.peer.id) {
            return;
        }
        let Some(mut places) = self.resolve(address).await else { return };
        self.peer.resolved_to(places.clone());
        // What has worked before will do so again; else in the resolver's order.
        places.sort_by_key(|&place| Some(place) != self.last);
        let local = self.shared.local;
        let places = reachable(places, local);
        if places.is_empty() {
            let why = format!("no address of it can be reached from {local}: one is IPv4, the other IPv6");
            self.peer.warn(address, CANT, &why);
        }
        for place in places {
            let dialled = timeout(self.shared.limits.dial_timeout, self.dial(place)).await;
            match dialled {
                Ok(Some(link)) => {
                    self.last = Some(place);
                    link::adopt(&self.shared, &self.peer, link);
                    return;
                }
                Ok(None) => {}
                Err(_) => debug!(peer = %self.peer.id, address = %place, "no answer"),
            }
        }
    }

    async fn resolve(&mut self, address: &PeerAddress) -> Option<Vec<SocketAddr>> {
        let (_, lookup) = match &mut self.lookup {
            Some(running) if running.0 == *address => running,
            other => other.insert((address.clone(), tokio::spawn(self.shared.resolver.resolve(address)))),
        };
        let Ok(found) = timeout(self.shared.limits.dial_timeout, lookup).await else {
            self.peer.warn(address, CANT, &"its name takes too long to look up");
            return None;
        };
        self.lookup = None;
        match found.map_err(io::Error::other).and_then(|found| found) {
            Ok(places) if places.is_empty() => {
                self.peer.warn(address, CANT, &"its name has no address");
                None
            }
            Ok(places) => Some(places),
            Err(err) => {
                self.peer.warn(address, CANT, &err);
                None
            }
        }
    }

    /// One attempt at one address.
    async fn dial(&self, address: SocketAddr) -> Option<Link> {
        let (shared, peer) = (&*self.shared, &*self.peer);
        let config = shared.credentials().client.clone();
        let connecting = self.endpoint.connect_with(config, address, &node_name(shared.cluster, peer.id));
        let connecting = match connecting {
            Ok(connecting) => connecting,
            Err(err) => {
                peer.warn(&address, CANT, &err);
                return None;
            }
        };
        let connection = match connecting.await {
            Ok(connection) => connection,
            Err(err) => {
                match Cause::of(&err) {
                    Cause::Us | Cause::Peer => peer.warn(&address, CANT, &shared.versions.hint(&err)),
                    Cause::Nobody => debug!(peer = %peer.id, %address, "no connection: {err}"),
                }
                return None;
            }
        };
        // TLS has checked the name already, but a certificate for several names would have passed.
        if let Err(why) = self.is_meant(&connection) {
            peer.warn(&address, CANT, &why);
            connection.close(Code::Identity.number(), why.as_bytes());
            return None;
        }
        let Some(version) = shared.versions.agreed(&connection) else {
            let why = shared.versions.part(&connection, shared.limits.dial_timeout).await;
            peer.warn(&address, CANT, &why);
            return None;
        };
        Some(Link::new(connection, shared.id, version, &shared.limits))
    }

    fn is_meant(&self, connection: &Connection) -> Result<(), String> {
        match tls::peer_of(connection) {
            Ok(found) if found == (self.shared.cluster, self.peer.id) => Ok(()),
            Ok((cluster, node)) => Err(format!("its certificate is for node {node} of cluster {cluster}")),
            Err(err) => Err(err.to_string()),
        }
    }
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

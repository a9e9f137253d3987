//! Takes connections in: whoever has a certificate of this cluster, and nobody else.

use std::{fmt::Display, net::SocketAddr, sync::Arc};

use quinn::{Connection, Endpoint, Incoming};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use tracing::{debug, warn};

use crate::{
    code::{Cause, Code},
    link,
    peer::Peer,
    shared::Shared,
    tls,
};

/// Runs until the endpoint is closed.
pub(crate) async fn accept(shared: Arc<Shared>, endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        let from = incoming.remote_address();
        let few_left = shared.handshakes.available_permits() <= shared.limits.handshakes / 2;
        if few_left && !incoming.remote_address_validated() && incoming.may_retry() {
            // A flood with made-up addresses ends here: the answer goes to the address.
            if let Err(err) = incoming.retry() {
                err.into_incoming().refuse();
            }
            continue;
        }
        match shared.handshakes.clone().try_acquire_owned() {
            Ok(permit) => {
                shared.tasks.spawn(handshake(shared.clone(), incoming, permit));
            }
            Err(_) => {
                refused(&shared, from, &"too many connections are being made at once");
                incoming.refuse();
            }
        }
    }
}

async fn handshake(shared: Arc<Shared>, incoming: Incoming, _permit: OwnedSemaphorePermit) {
    let from = incoming.remote_address();
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(err) => return refused(&shared, from, &err),
    };
    let connection = match timeout(shared.limits.dial_timeout, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(err)) => {
            return match Cause::of(&err) {
                Cause::Us => refused(&shared, from, &err),
                Cause::Peer => refused(&shared, from, &format_args!("it refuses this node: {err}")),
                // It has given up, or the node stops: nobody was refused.
                Cause::Nobody => debug!(%from, "a connection was given up in its handshake: {err}"),
            };
        }
        Err(_) => return debug!(%from, "a connection was given up in its handshake: it takes too long"),
    };
    match identify(&shared, &connection) {
        Ok(peer) => {
            let dialled_by = peer.id;
            if !link::adopt(&shared, &peer, connection, dialled_by) {
                debug!(peer = %peer.id, %from, "a second connection is not needed");
            }
        }
        Err(why) => {
            refused(&shared, from, &why);
            connection.close(Code::Identity.number(), why.as_bytes());
        }
    }
}

/// Which node this is, by its certificate, whose chain the handshake has verified.
fn identify(shared: &Shared, connection: &Connection) -> Result<Arc<Peer>, String> {
    let (cluster, node) = tls::peer_of(connection).map_err(|err| err.to_string())?;
    if cluster != shared.cluster {
        return Err(format!("node {node} is of cluster {cluster}, this node of cluster {}", shared.cluster));
    }
    if node == shared.id {
        return Err(format!("it says that it is node {node}, which is this node"));
    }
    // A node that isn't in the address book is answered all the same: this node may lag behind the membership.
    let too_many = || format!("node {node} is not in the address book, and there are too many of these");
    shared.peer_or_new(node).ok_or_else(too_many)
}

fn refused(shared: &Shared, from: SocketAddr, why: &dyn Display) {
    shared.refused.add(1);
    if let Some(suppressed) = shared.warnings.speak() {
        // Who it is can't be said of a certificate that isn't valid; whose address it uses can.
        let address_of = shared.node_at(from).map(tracing::field::display);
        warn!(%from, address_of, suppressed, "refusing a connection: {why}");
    }
}

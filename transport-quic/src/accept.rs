//! Takes connections in: whoever has a certificate of this cluster and is allowed, and nobody else.

use std::{fmt::Display, net::SocketAddr, sync::Arc};

use quinn::{Connection, Endpoint, Incoming};
use quorate_core::NodeId;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::{
    admission::{Admitted, Verdict},
    audit,
    code::{Cause, Code},
    link,
    peer::{Link, Peer},
    shared::Shared,
    stats::Counter,
    tls,
};

/// Runs until the endpoint is closed.
pub(crate) async fn accept(shared: Arc<Shared>, endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        let from = incoming.remote_address();
        let known = shared.node_at(from).is_some();
        match shared.admission.admit(from, known, incoming.remote_address_validated()) {
            Verdict::Admitted(admitted) => {
                shared.tasks.spawn(handshake(shared.clone(), incoming, admitted));
            }
            Verdict::Prove => {
                // A flood with made-up addresses ends here: the answer goes to the address.
                if let Err(err) = incoming.retry() {
                    err.into_incoming().refuse();
                }
            }
            Verdict::Full => {
                let why = "too many connections are being made at once";
                refused(&shared, from, &shared.refusals.crowded, &why);
                incoming.refuse();
            }
        }
    }
}

async fn handshake(shared: Arc<Shared>, incoming: Incoming, _admitted: Admitted) {
    let from = incoming.remote_address();
    let refusals = &shared.refusals;
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(err) => return refused(&shared, from, &refusals.tls, &shared.versions.hint(&err)),
    };
    let connection = match timeout(shared.limits.dial_timeout, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(err)) => {
            let why = shared.versions.hint(&err);
            return match Cause::of(&err) {
                Cause::Us => refused(&shared, from, &refusals.tls, &why),
                Cause::Peer => {
                    refused(&shared, from, &refusals.by_peer, &format_args!("it refuses this node: {why}"));
                }
                // It has given up, or the node stops: nobody was refused.
                Cause::Nobody => debug!(%from, "a connection was given up in its handshake: {err}"),
            };
        }
        Err(_) => return debug!(%from, "a connection was given up in its handshake: it takes too long"),
    };
    let refuse = |refusal: Refusal<'_>| {
        refused(&shared, from, refusal.counter, &refusal.why);
        connection.close(refusal.code.number(), refusal.why.as_bytes());
    };
    let node = match identify(&shared, &connection) {
        Ok(node) => node,
        Err(refusal) => return refuse(refusal),
    };
    let Some(version) = shared.versions.agreed(&connection) else {
        let patience = shared.limits.dial_timeout;
        let why = shared.versions.refuse(&connection, (shared.id, node), patience).await;
        return refused(&shared, from, &refusals.version, &why);
    };
    match admit(&shared, node) {
        Ok(peer) => {
            let link = Link::new(connection, peer.id, version, &shared.limits);
            link::adopt(&shared, &peer, link);
        }
        Err(refusal) => refuse(refusal),
    }
}

/// Why a connection is not used, once it is known whose it is.
struct Refusal<'a> {
    counter: &'a Counter,
    code: Code,
    why: String,
}

/// Which node this is, by its certificate, whose chain the handshake has verified.
fn identify<'a>(shared: &'a Shared, connection: &Connection) -> Result<NodeId, Refusal<'a>> {
    let refusal = |why| Refusal { counter: &shared.refusals.identity, code: Code::Identity, why };
    let (cluster, node) = tls::peer_of(connection).map_err(|err| refusal(err.to_string()))?;
    if cluster != shared.cluster {
        return Err(refusal(format!(
            "node {node} is of cluster {cluster}, this node of cluster {}",
            shared.cluster
        )));
    }
    if node == shared.id {
        return Err(refusal(format!("it says that it is node {node}, which is this node")));
    }
    if !shared.allows(node) {
        let (counter, why) = (&shared.refusals.not_allowed, audit::not_allowed(node));
        return Err(Refusal { counter, code: Code::NotAllowed, why });
    }
    Ok(node)
}

/// The peer's account, if it may connect once more.
fn admit(shared: &Shared, node: NodeId) -> Result<Arc<Peer>, Refusal<'_>> {
    // A node that isn't in the address book is answered all the same: this node may lag behind the membership.
    let peer = shared.peer_or_new(node, None).ok_or_else(|| Refusal {
        counter: &shared.refusals.no_room,
        code: Code::Busy,
        why: format!("node {node} is not in the address book, and there are too many of these"),
    })?;
    if peer.may_connect() {
        Ok(peer)
    } else {
        let counter = &shared.refusals.too_often;
        Err(Refusal { counter, code: Code::Busy, why: format!("node {node} connects too often") })
    }
}

fn refused(shared: &Shared, from: SocketAddr, counter: &Counter, why: &dyn Display) {
    counter.add(1);
    if let Some(suppressed) = shared.warnings.speak() {
        // Who it is can't be said of a certificate that isn't valid; whose address it uses can.
        let address_of = shared.node_at(from).map(tracing::field::display);
        warn!(%from, address_of, suppressed, "refusing a connection: {why}");
    }
}

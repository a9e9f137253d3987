//! What the transport has counted.

use metrics::{Label, counter, gauge};
use quorate_core::NodeId;
use quorate_transport_quic::{ClassStats, PeerStats, Stats};

use super::names;

/// Tells it.
pub(super) fn tell(node: NodeId, stats: &Stats) {
    let Stats { peers, open_connections, unroutable, refused, handshakes: _, outdated: _, disallowed: _ } =
        stats;
    let labels = vec![Label::new("node", node.0.to_string())];
    gauge!(names::OPEN_CONNECTIONS.name, labels.clone()).set(*open_connections as f64);
    counter!(names::UNROUTABLE.name, labels.clone()).absolute(*unroutable);
    counter!(names::REFUSED.name, labels.clone()).absolute(refused.total());
    for peer in peers {
        tell_peer(&labels, peer);
    }
}

fn tell_peer(labels: &[Label], stats: &PeerStats) {
    let PeerStats {
        peer,
        connected,
        connections,
        violations,
        forwarded,
        served,
        control,
        append,
        connection: _,
        found_ended: _,
        sent_packets: _,
        lost_packets: _,
        forward_sent_bytes: _,
        forward_received_bytes: _,
        bulk: _,
    } = stats;
    let mut labels = labels.to_vec();
    labels.push(Label::new("peer", peer.0.to_string()));
    gauge!(names::PEER_CONNECTED.name, labels.clone()).set(u8::from(*connected));
    counter!(names::PEER_CONNECTIONS.name, labels.clone()).absolute(*connections);
    counter!(names::PEER_VIOLATIONS.name, labels.clone()).absolute(*violations);
    counter!(names::PEER_FORWARDED.name, labels.clone()).absolute(*forwarded);
    counter!(names::PEER_SERVED.name, labels.clone()).absolute(*served);
    for (class, stats) in [("control", control), ("append", append)] {
        let mut labels = labels.clone();
        labels.push(Label::new("class", class));
        tell_class(&labels, stats);
    }
}

fn tell_class(labels: &[Label], stats: &ClassStats) {
    let ClassStats { sent, sent_bytes, received, received_bytes, dropped, queued, queued_bytes } = *stats;
    counter!(names::PEER_SENT.name, labels.to_vec()).absolute(sent);
    counter!(names::PEER_SENT_BYTES.name, labels.to_vec()).absolute(sent_bytes);
    counter!(names::PEER_RECEIVED.name, labels.to_vec()).absolute(received);
    counter!(names::PEER_RECEIVED_BYTES.name, labels.to_vec()).absolute(received_bytes);
    counter!(names::PEER_DROPPED.name, labels.to_vec()).absolute(dropped);
    gauge!(names::PEER_QUEUE.name, labels.to_vec()).set(queued as f64);
    gauge!(names::PEER_QUEUE_BYTES.name, labels.to_vec()).set(queued_bytes as f64);
}

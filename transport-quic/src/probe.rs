//! Notices at once that a peer's process has ended, where its host still runs: the host says that the port is closed (ICMP).
//!
//! The system tells that only to a socket connected to the very address, which that of QUIC is not. So when the peer owes an
//! answer for a while, a datagram of one byte is sent from a connected one. No port that is open answers it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::UdpSocket,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{debug, info};

use crate::{
    code::Code,
    peer::{Link, Peer},
};

/// For how many looks in a row the peer must have owed an answer.
const PATIENCE: u32 = 2;

/// Not the beginning of any QUIC packet: bit 0x40 is always set there.
const NOTHING: [u8; 1] = [0];

/// Runs as long as the connection.
pub(crate) async fn watch(peer: Arc<Peer>, link: Arc<Link>, keep_alive: Duration) {
    let look = (keep_alive / 4).clamp(Duration::from_millis(20), Duration::from_millis(250));
    let mut looks = interval(look);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = Traffic::of(&link);
    let mut owed = 0;
    loop {
        looks.tick().await;
        let now = Traffic::of(&link);
        if now.received != before.received {
            (before, owed) = (now, 0);
        } else if now.asked != before.asked {
            owed += 1;
        }
        let late = look * owed > link.connection.rtt() * 4;
        if owed < PATIENCE || !late {
            continue;
        }
        let address = link.connection.remote_address();
        match port_is_closed(address, look).await {
            Ok(true) => {
                peer.found_ended.add(1);
                info!(peer = %peer.id, from = %address, "the peer's process has ended: its port is closed");
                link.connection.close(Code::Abandoned.number(), b"the port is closed");
                return;
            }
            Ok(false) => {}
            Err(err) => debug!(peer = %peer.id, %address, "can't tell whether the port is closed: {err}"),
        }
    }
}

/// What has come, and what has been sent that has to be answered.
struct Traffic {
    received: u64,
    asked: u64,
}

impl Traffic {
    fn of(link: &Link) -> Self {
        let stats = link.connection.stats();
        Self { received: stats.udp_rx.datagrams, asked: stats.frame_tx.stream + stats.frame_tx.ping }
    }
}

/// Waits for a word of it from the host at `address`; silence is a no.
async fn port_is_closed(address: SocketAddr, patience: Duration) -> io::Result<bool> {
    let address = match address {
        SocketAddr::V6(v6) => v6.ip().to_ipv4_mapped().map_or(address, |ip| (ip, v6.port()).into()),
        SocketAddr::V4(_) => address,
    };
    let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    socket.send(&NOTHING).await?;
    match timeout(patience, socket.recv(&mut [0])).await {
        Ok(Err(err)) => match err.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Ok(true),
            _ => Err(err),
        },
        Ok(Ok(_)) | Err(_) => Ok(false),
    }
}

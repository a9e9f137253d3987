//! The network between the hosts: each has an interface of its own, and all that leaves it comes to a router in this
//! process, which passes it on, later, or not at all.
//!
//! The interfaces are the kernel's (TUN), and so are the hosts' IP, UDP and TCP. The router is ours, for two reasons: not
//! every kernel has `netem`, and here each *direction* of each link has faults of its own. What is cut is dropped, also
//! what is under way; nobody is told, as with a pulled cable.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fmt,
    net::Ipv4Addr,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::{
    random::Random,
    sandbox::{inside, namespace, namespace_file, run},
};

const MTU: usize = 1_500;

/// Bytes of delayed packets at most; beyond it packets are lost, as in a router whose buffer is full.
const MAX_DELAYED: usize = 64 << 20;

const INTERFACE: &str = "wire";

/// One direction between two hosts.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Link {
    /// Nothing comes through.
    pub cut: bool,
    /// How much of it gets lost: from 0 to 1.
    pub loss: f64,
    /// How much later it arrives. The order stays.
    pub delay: Duration,
}

/// What the router has done with packets.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Traffic {
    /// Passed on.
    pub passed: u64,
    /// Dropped, for the link was cut.
    pub cut: u64,
    /// Lost.
    pub lost: u64,
}

/// The network.
#[derive(Debug)]
pub struct Net {
    shared: Arc<Shared>,
}

struct Shared {
    nodes: usize,
    wires: Vec<SyncDevice>,
    /// By sender, then by receiver.
    links: Mutex<Vec<Vec<Link>>>,
    delayed: Mutex<Delayed>,
    more: Condvar,
    passed: AtomicU64,
    cut: AtomicU64,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Delayed {
    bytes: usize,
    /// The next one to be due first.
    packets: BinaryHeap<Reverse<Late>>,
    count: u64,
}

/// A packet under way: when it is due, how many came before it, from which host to which, and its bytes.
type Late = (Instant, u64, usize, usize, Vec<u8>);

impl Net {
    /// So many nodes, each a host in a namespace, counted from 0; and this process, as the host of the clients.
    ///
    /// # Errors
    /// If the kernel refuses a namespace or an interface.
    pub fn new(nodes: usize, seed: u64) -> Result<Self> {
        let mut wires = Vec::new();
        for node in 0..nodes {
            wires.push(host(node)?);
        }
        wires.push(clients(nodes)?);
        let hosts = wires.len();
        let shared = Arc::new(Shared {
            nodes,
            wires,
            links: Mutex::new(vec![vec![Link::default(); hosts]; hosts]),
            delayed: Mutex::default(),
            more: Condvar::new(),
            passed: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        for from in 0..hosts {
            let shared = shared.clone();
            let random = Random::new(seed ^ (from as u64 + 1));
            let route = move || shared.route(from, random);
            thread::Builder::new().name(format!("wire-{from}")).spawn(route)?;
        }
        let late = shared.clone();
        thread::Builder::new().name("wire-delay".to_owned()).spawn(move || late.deliver())?;
        Ok(Self { shared })
    }

    /// A node's address.
    #[must_use]
    pub fn address(node: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, u8::try_from(node + 1).unwrap_or(u8::MAX))
    }

    /// The name of a node's network namespace.
    #[must_use]
    pub fn name(node: usize) -> String {
        format!("node{}", node + 1)
    }

    /// Changes one direction between two nodes.
    pub fn set(&self, from: usize, to: usize, link: Link) {
        if let Some(entry) = self.shared.links().get_mut(from).and_then(|row| row.get_mut(to)) {
            *entry = link;
        }
    }

    /// Changes every direction between nodes; those of clients stay.
    pub fn set_all(&self, link: Link) {
        let nodes = self.shared.nodes;
        for row in self.shared.links().iter_mut().take(nodes) {
            row.iter_mut().take(nodes).for_each(|entry| *entry = link);
        }
    }

    /// Both directions between a node and every other.
    pub fn set_around(&self, node: usize, link: Link) {
        for other in (0..self.shared.nodes).filter(|other| *other != node) {
            self.set(node, other, link);
            self.set(other, node, link);
        }
    }

    /// No link has a fault any more.
    pub fn heal(&self) {
        self.shared.links().iter_mut().flatten().for_each(|link| *link = Link::default());
    }

    /// What has gone through it until now.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let Shared { passed, cut, lost, .. } = &*self.shared;
        Traffic { passed: passed.load(Relaxed), cut: cut.load(Relaxed), lost: lost.load(Relaxed) }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("links", &self.links()).finish_non_exhaustive()
    }
}

impl Shared {
    fn links(&self) -> MutexGuard<'_, Vec<Vec<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn delayed(&self) -> MutexGuard<'_, Delayed> {
        self.delayed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what leaves a host, for ever.
    fn route(&self, from: usize, mut random: Random) {
        let mut buffer = [0; 2 * MTU];
        loop {
            let Ok(len) = self.wires[from].recv(&mut buffer) else { return };
            let packet = &buffer[..len];
            let Some(to) = self.receiver(packet) else { continue };
            let link = self.links()[from][to];
            if link.cut {
                self.cut.fetch_add(1, Relaxed);
            } else if link.loss > 0.0 && random.chance(link.loss) {
                self.lost.fetch_add(1, Relaxed);
            } else if link.delay.is_zero() {
                self.pass(to, packet);
            } else {
                self.delay(from, to, packet, link.delay);
            }
        }
    }

    /// Whose it is; only IPv4 is carried.
    fn receiver(&self, packet: &[u8]) -> Option<usize> {
        let to: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
        if packet[0] >> 4 != 4 {
            return None;
        }
        (0..self.wires.len()).find(|host| Net::address(*host).octets() == to)
    }

    fn pass(&self, to: usize, packet: &[u8]) {
        // A host whose queue is full loses it, as real ones do.
        match self.wires[to].send(packet) {
            Ok(_) => self.passed.fetch_add(1, Relaxed),
            Err(_) => self.lost.fetch_add(1, Relaxed),
        };
    }

    fn delay(&self, from: usize, to: usize, packet: &[u8], by: Duration) {
        let mut delayed = self.delayed();
        if delayed.bytes + packet.len() > MAX_DELAYED {
            self.lost.fetch_add(1, Relaxed);
            return;
        }
        delayed.bytes += packet.len();
        delayed.count += 1;
        let count = delayed.count;
        delayed.packets.push(Reverse((Instant::now() + by, count, from, to, packet.to_vec())));
        drop(delayed);
        self.more.notify_one();
    }

    /// Passes on what is due, for ever.
    fn deliver(&self) {
        let mut delayed = self.delayed();
        loop {
            let now = Instant::now();
            let wait = match delayed.packets.peek() {
                None => Duration::from_secs(3600),
                Some(Reverse((due, ..))) => due.saturating_duration_since(now),
            };
            if !wait.is_zero() {
                let woken = self.more.wait_timeout(delayed, wait);
                delayed = woken.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let Some(Reverse((_, _, from, to, packet))) = delayed.packets.pop() else { continue };
            delayed.bytes -= packet.len();
            drop(delayed);
            if self.links()[from][to].cut {
                self.cut.fetch_add(1, Relaxed);
            } else {
                self.pass(to, &packet);
            }
            delayed = self.delayed();
        }
    }
}

/// A node's host: a namespace with loopback and an interface, whose other end is returned.
fn host(node: usize) -> Result<SyncDevice> {
    let name = Net::name(node);
    namespace(&name)?;
    let file = namespace_file(&name)?;
    // On a thread of its own, which ends with it: a thread that has gone into a namespace stays there.
    let made = thread::spawn(move || {
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))?;
        DeviceBuilder::new().name(INTERFACE).build_sync()
    });
    let wire = made.join().ok().context("the thread that makes an interface panicked")?;
    let wire = wire.with_context(|| format!("can't make an interface in {name}"))?;
    for args in interface_up(node) {
        inside(&name, "ip", &args.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    Ok(wire)
}

/// The host of the clients, which is where this process is.
fn clients(nodes: usize) -> Result<SyncDevice> {
    let wire = DeviceBuilder::new().name(INTERFACE).build_sync().context("can't make an interface")?;
    for args in interface_up(nodes) {
        run("ip", &args.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    Ok(wire)
}

/// What `ip` is told.
fn interface_up(host: usize) -> [Vec<String>; 2] {
    let words = |text: String| text.split(' ').map(str::to_owned).collect();
    [
        words(format!("address add {}/24 dev {INTERFACE}", Net::address(host))),
        words(format!("link set {INTERFACE} mtu {MTU} txqueuelen 10000 up")),
    ]
}

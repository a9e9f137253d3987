//! Nodes on loopback, what they receive, and what they log.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quorate_core::{Body, GroupId, Index, LogId, Message, NodeId, Run, Term};
use quorate_runtime_tokio::{BoxFuture, BoxStream, ForwardError, Inbound, Transport as _};
use quorate_transport_quic::{
    ClusterId, Options, PeerStats, QuicTransport, node_name,
    pki::{Ca, Identity, Issued},
};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::sync::watch;

/// How long anything may take that must happen. Long, for the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A transport and what it has received.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) transport: QuicTransport,
    pub(crate) inbox: Arc<Inbox>,
}

impl Node {
    pub(crate) fn start(options: &Options) -> Self {
        logs();
        let id = options.id;
        let transport = bind(options);
        let inbox = Arc::new(Inbox::new(id));
        transport.start(inbox.clone());
        Self { id, transport, inbox }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.transport.local_addr()
    }

    pub(crate) fn send(&self, to: &Self, message: Message) {
        self.transport.send(GROUP, to.id, message);
    }

    pub(crate) fn peer(&self, peer: NodeId) -> PeerStats {
        self.transport.stats().peers.into_iter().find(|stats| stats.peer == peer).expect("it is a peer")
    }

    /// Messages get through, both ways, now: says something new until it has arrived.
    pub(crate) async fn exchanges_with(&self, other: &Self) {
        for (from, to) in [(self, other), (other, self)] {
            let marker = heartbeat(rand());
            eventually("a message gets through", || {
                from.send(to, marker.clone());
                to.inbox.all().contains(&(GROUP, from.id, marker.clone()))
            })
            .await;
        }
    }
}

/// Waits until all of them have met, and two that have dialled at once have settled on a connection: what is under way on
/// the other one is lost.
pub(crate) async fn met(nodes: &[&Node]) {
    for (n, a) in nodes.iter().enumerate() {
        for b in &nodes[..n] {
            a.exchanges_with(b).await;
        }
    }
    for node in nodes {
        let settled = || node.transport.stats().open_connections == nodes.len() - 1;
        eventually("one connection is left for each pair", settled).await;
    }
}

/// An earlier holder of the port may still be on its way out.
fn bind(options: &Options) -> QuicTransport {
    for _ in 0..200 {
        match QuicTransport::bind(options.clone()) {
            Err(quorate_transport_quic::BindError::Listen { error, .. })
                if error.kind() == io::ErrorKind::AddrInUse =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            result => return result.expect("it binds"),
        }
    }
    panic!("{} stays in use", options.listen);
}

pub(crate) const GROUP: GroupId = GroupId(7);

/// A group whose requests never get an answer, one that refuses, one that doesn't know, one that has too much to do.
pub(crate) const SILENT: GroupId = GroupId(100);
pub(crate) const REFUSING: GroupId = GroupId(101);
pub(crate) const UNSURE: GroupId = GroupId(102);
pub(crate) const BUSY: GroupId = GroupId(104);

/// A group whose messages hold up whoever delivers them, until the inbox is opened.
pub(crate) const STALLING: GroupId = GroupId(103);

/// What a node is told of its touch with a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Touch {
    Made(NodeId),
    Lost(NodeId),
}

/// Keeps what arrives; answers requests with the request, backwards.
pub(crate) struct Inbox {
    id: NodeId,
    received: Mutex<Vec<(GroupId, NodeId, Message)>>,
    count: watch::Sender<usize>,
    pub(crate) open: AtomicBool,
    pub(crate) requests: watch::Sender<usize>,
    touch: Mutex<Vec<Touch>>,
    /// Streams that were opened and that nobody has taken yet.
    streams: Mutex<VecDeque<(GroupId, NodeId, BoxStream)>>,
}

impl Inbox {
    fn new(id: NodeId) -> Self {
        Self {
            id,
            received: Mutex::default(),
            count: watch::Sender::new(0),
            open: AtomicBool::new(false),
            requests: watch::Sender::new(0),
            touch: Mutex::default(),
            streams: Mutex::default(),
        }
    }

    /// Waits for a stream that somebody has opened, and takes it.
    pub(crate) async fn stream(&self) -> (GroupId, NodeId, BoxStream) {
        eventually("a stream is opened", || !self.streams.lock().unwrap().is_empty()).await;
        self.streams.lock().unwrap().pop_front().unwrap()
    }

    /// What was told of touch with peers, in order.
    pub(crate) fn touch(&self) -> Vec<Touch> {
        self.touch.lock().unwrap().clone()
    }

    /// The peers that were lost, in order.
    pub(crate) fn lost(&self) -> Vec<NodeId> {
        let lost = |touch| match touch {
            Touch::Lost(peer) => Some(peer),
            Touch::Made(_) => None,
        };
        self.touch().into_iter().filter_map(lost).collect()
    }

    pub(crate) fn all(&self) -> Vec<(GroupId, NodeId, Message)> {
        self.received.lock().unwrap().clone()
    }

    /// Messages from one node, in the order of their arrival.
    pub(crate) fn from(&self, node: NodeId) -> Vec<Message> {
        self.all().into_iter().filter(|(_, from, _)| *from == node).map(|(.., message)| message).collect()
    }

    /// Waits until so many messages have come.
    pub(crate) async fn has(&self, count: usize) {
        within("messages arrive", async {
            self.count.subscribe().wait_for(|have| *have >= count).await.unwrap();
        })
        .await;
    }
}

impl Inbound for Inbox {
    fn receive(&self, group: GroupId, from: NodeId, message: Message) {
        if group == STALLING {
            tokio::task::block_in_place(|| {
                // A test that has failed won't open it, and must end all the same.
                let until = Instant::now() + PATIENCE;
                while !self.open.load(Relaxed) && Instant::now() < until {
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
        self.received.lock().unwrap().push((group, from, message));
        self.count.send_modify(|count| *count += 1);
    }

    fn unreachable(&self, peer: NodeId) {
        self.touch.lock().unwrap().push(Touch::Lost(peer));
    }

    fn reachable(&self, peer: NodeId) {
        self.touch.lock().unwrap().push(Touch::Made(peer));
    }

    fn opened(&self, group: GroupId, from: NodeId, stream: BoxStream) {
        if group != REFUSING {
            self.streams.lock().unwrap().push_back((group, from, stream));
        }
    }

    fn forwarded(
        &self,
        group: GroupId,
        from: NodeId,
        request: Bytes,
    ) -> BoxFuture<Result<Bytes, ForwardError>> {
        self.requests.send_modify(|count| *count += 1);
        let to = self.id;
        Box::pin(async move {
            match group {
                SILENT => std::future::pending().await,
                REFUSING => Err(ForwardError::NotDelivered { to, why: format!("not for node {from}") }),
                BUSY => Err(ForwardError::Busy { to, why: "much to do".into() }),
                UNSURE => Err(ForwardError::Unknown { to, why: "leadership was lost".into() }),
                _ => Ok(request.iter().rev().copied().collect()),
            }
        })
    }
}

/// A cluster's authority, and addresses for its nodes 1, 2, ...
pub(crate) struct Cluster {
    pub(crate) id: ClusterId,
    pub(crate) ca: Ca,
    pub(crate) addresses: Vec<(NodeId, SocketAddr)>,
}

impl Cluster {
    pub(crate) fn of(nodes: usize) -> Self {
        let id = ClusterId(rand());
        Self { id, ca: Ca::generate(id).unwrap(), addresses: free_addresses(nodes) }
    }

    pub(crate) fn options(&self, id: u64) -> Options {
        let id = NodeId(id);
        let listen = self.addresses.iter().find(|(node, _)| *node == id).unwrap().1;
        let peers = self.addresses.iter().map(|&(node, address)| (node, address.into())).collect();
        Options { peers, ..Options::new(listen, self.identity(id)) }
    }

    pub(crate) fn identity(&self, id: NodeId) -> Identity {
        self.ca.issue(id).unwrap().identity().unwrap()
    }

    /// A certificate of the cluster's authority with these extended key usages, as another authority might issue it.
    pub(crate) fn identity_for(&self, id: NodeId, usages: &[ExtendedKeyUsagePurpose]) -> Identity {
        let dir = tempfile::tempdir().unwrap();
        self.ca.save(dir.path()).unwrap();
        let ca_key = KeyPair::from_pem(&std::fs::read_to_string(dir.path().join("ca.key")).unwrap()).unwrap();
        let issuer = Issuer::from_ca_cert_pem(self.ca.certificate(), ca_key).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::DnsName(node_name(self.id, id).try_into().unwrap())];
        params.extended_key_usages = usages.to_vec();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap().pem();
        Identity::from_pem(&certificate, &key.serialize_pem(), self.ca.certificate()).unwrap()
    }

    pub(crate) fn start(&self, id: u64) -> Node {
        Node::start(&self.options(id))
    }
}

/// Addresses that were free a moment ago.
pub(crate) fn free_addresses(count: usize) -> Vec<(NodeId, SocketAddr)> {
    let sockets: Vec<_> = (0..count).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    (1..).map(NodeId).zip(sockets.iter().map(|socket| socket.local_addr().unwrap())).collect()
}

pub(crate) fn heartbeat(round: u64) -> Message {
    Message { term: Term(1), body: Body::Heartbeat { commit: Index(0), round, quiesce: false } }
}

/// An append of one entry, the one at `first`.
pub(crate) fn append(first: u64, payload: usize) -> Message {
    let run = Run::commands(Term(1), Index(first), &[vec![first as u8; payload]]).unwrap();
    let prev = if first == 1 { LogId::ZERO } else { LogId::new(Term(1), Index(first - 1)) };
    Message { term: Term(1), body: Body::Append { prev, commit: Index(0), entries: vec![run].into() } }
}

/// A number that no other call gets.
pub(crate) fn rand() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0) >> 1 | 1
}

/// Waits for what must happen.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(result) => result,
        Err(_) => panic!("it should be that {what}; the log:\n{}", log_text()),
    }
}

/// Waits until it is so.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

// The log: one for the whole process, since tasks run on any thread.

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Starts to keep the log.
pub(crate) fn logs() {
    struct Writer;
    impl io::Write for Writer {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            LOG.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt()
            .with_env_filter("quorate_transport_quic=debug")
            .with_ansi(false)
            .with_writer(|| Writer)
            .init();
    });
}

fn log_text() -> String {
    String::from_utf8_lossy(&LOG.lock().unwrap()).into_owned()
}

/// The lines with all of these in them.
pub(crate) fn logged(parts: &[&str]) -> Vec<String> {
    log_text().lines().filter(|line| parts.iter().all(|part| line.contains(part))).map(String::from).collect()
}

/// Waits for a warning with all of these in it.
pub(crate) async fn warned(parts: &[&str]) -> String {
    let mut all = vec!["WARN"];
    all.extend(parts);
    eventually(&format!("{all:?} is logged"), || !logged(&all).is_empty()).await;
    logged(&all).remove(0)
}

// Quinn without any of ours around it.

/// A bare client with the given certificate, which speaks version 1, as the first release did.
pub(crate) fn raw_client(ca: &Ca, shows: Option<&Issued>) -> quinn::Endpoint {
    raw_client_that_speaks(&[b"quorate"], ca, shows)
}

/// A bare client with the given certificate.
pub(crate) fn raw_client_that_speaks(
    protocols: &[&[u8]],
    ca: &Ca,
    shows: Option<&Issued>,
) -> quinn::Endpoint {
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots(ca));
    let mut tls = match shows {
        Some(issued) => tls.with_client_auth_cert(chain(issued), key(issued)).unwrap(),
        None => tls.with_no_client_auth(),
    };
    tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let mut endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    endpoint.set_default_client_config(config);
    endpoint
}

/// A bare server with the given certificate, which asks nobody for theirs.
pub(crate) fn raw_server(listen: SocketAddr, shows: &Issued) -> quinn::Endpoint {
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain(shows), key(shows))
        .unwrap();
    tls.alpn_protocols = vec![b"quorate".to_vec()];
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    quinn::Endpoint::server(config, listen).unwrap()
}

/// A connection of a bare client to a node.
pub(crate) async fn raw_connection(
    cluster: &Cluster,
    client: &quinn::Endpoint,
    node: &Node,
) -> quinn::Connection {
    let connecting = client.connect(node.address(), &node_name(cluster.id, node.id)).unwrap();
    within("a client connects", connecting).await.expect("the node's certificate is in order")
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(ca: &Ca) -> Arc<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.certificate().as_bytes()).unwrap()).unwrap();
    Arc::new(roots)
}

fn chain(issued: &Issued) -> Vec<CertificateDer<'static>> {
    vec![CertificateDer::from_pem_slice(issued.certificate().as_bytes()).unwrap()]
}

fn key(issued: &Issued) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(issued.key().as_bytes()).unwrap()
}

//! `quorate serve`: one node.

use std::{io, net::SocketAddr, sync::Arc};

use quorate_coord::{
    machine::Machine,
    metrics::{self, Endpoint},
    server,
};
use quorate_core::{GroupId, Membership, NodeId};
use quorate_runtime_tokio::Node;
use quorate_storage_redb::{self as storage, RedbStore};
use quorate_transport_quic::{self as quic, ClusterId, PeerAddress, QuicTransport};
use tokio::{
    net::TcpSocket,
    signal::unix::{SignalKind, signal},
};
use tracing::info;

use super::{
    Failure, Result,
    certificates::{self, Renewals},
    config::{self, Member, NodeConfig},
    failure::Context as _,
    logs::{self, LogFormat},
    node_args::NodeArgs,
    otel::Otel,
    recording::RecordArgs,
    supervise::{self, Event},
};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

const EXAMPLES: &str = "\
The file of --config is TOML; paths in it are relative to it:

  format = 1
  id = 1                            # from 1, never used before in this cluster
  cluster = \"00c0ffee00c0ffee\"      # 16 hexadecimal digits, on all nodes
  data = \"store\"                    # the directory of the node's store
  listen-client = \"127.0.0.1:2379\"  # TCP, etcd's v3 API
  listen-peer = \"127.0.0.1:2380\"    # UDP, QUIC with mutual TLS
  metrics = \"127.0.0.1:2381\"        # TCP, HTTP, for Prometheus; none without it
  [tls]                             # a node that is alone needs none
  ca = \"ca.pem\"
  cert = \"node.pem\"       # for node-1.00c0ffee00c0ffee.quorate.internal
  key = \"node.key\"
  [[members]]                       # all at the beginning, this node included
  id = 1
  peer = \"127.0.0.1:2380\"
  client = \"http://127.0.0.1:2379\"  # told to clients that ask

A peer's HOST may be a name: it is looked up whenever that node is dialled, so
its address may change. A certificate is for one node of one cluster, whatever
its address. SIGHUP has the files of --ca, --cert and --key (in the file: [tls])
read again, for certificates and authorities to be replaced without a restart;
what can't be used is refused in the log, and what was before stays in force.

`quorate dev` writes such a file for each of its nodes, with certificates. A
node whose store is lost must not be bootstrapped again: it would forget what it
has acknowledged, and whom it voted for.

Clients are served without TLS and without authentication: by default only on
this machine. SIGTERM and SIGINT (Ctrl-C) stop the node in an orderly way: if it
leads, it hands over first.
Metrics, too, are served to whoever asks, at http://IP:PORT/metrics.
RUST_LOG chooses what is logged (default: info).

Each write is a trace, from the request over the leader's log to the reply, on
all nodes the same; one that a client has begun, with the header traceparent
(W3C Trace Context), goes on. With --otlp it is sent to a collector, if the
program was built with `--features otel`; RUST_LOG=info,quorate::trace=debug
shows in the log to which a line belongs.

--record DIR is a flight recorder, made to be left on. `quorate-sim flight DIR`
replays it step by step, with the invariants that it can decide; so it is what
to add to a report of something that should not have happened. It keeps the
newest of what has happened, over restarts too, up to --record-bytes. SIGUSR1
has a copy made of it, DIR/dump-N (without --record it is only logged), and an
end that should not be leaves one in DIR/group-0/kept-N. Whatever becomes of it, the node goes on. What clients have
written is in it, unless --record-redact leaves that out.

Examples:
  quorate serve --config node-1/node.toml --bootstrap    the very first start
  quorate serve --config node-1/node.toml                ever after
  quorate serve --id 1 --cluster 00c0ffee00c0ffee --data ./one --bootstrap
                                            a cluster of one, without peers
  quorate serve --id 1 --cluster 00c0ffee00c0ffee --data ./n1 --bootstrap \\
      --listen-peer 10.0.0.1:2380 --peer 2=10.0.0.2:2380 --peer 3=10.0.0.3:2380 \\
      --ca ca.pem --cert n1.pem --key n1.key";

/// `quorate serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    node: NodeArgs,
    /// The cluster's id: 16 hexadecimal digits
    #[arg(long, value_name = "HEX", required_unless_present = "config", value_parser = config::cluster_id::parse)]
    cluster: Option<u64>,

    /// Make the node's store; only at its very first start. Refused if there is one
    #[arg(long)]
    bootstrap: bool,
    #[command(flatten)]
    record: RecordArgs,
    /// Serve metrics for Prometheus here [default without IP:PORT: 127.0.0.1:2381]
    #[arg(long, value_name = "IP:PORT", num_args = 0..=1, default_missing_value = config::DEFAULT_METRICS)]
    metrics: Option<SocketAddr>,
    /// Send spans to the OpenTelemetry collector there (OTLP over gRPC, such as http://127.0.0.1:4317); see below
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// How log lines look
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// Stop when stdin ends, and tell on stdout what happens
    #[arg(long, hide = true)]
    supervised: bool,
}

/// Runs a node until it is told to stop.
pub(crate) async fn run(args: Args) -> Result {
    let mut config = args.node.config(args.cluster)?;
    config.metrics = args.metrics.or(config.metrics);
    let otel = args.otlp.map(|endpoint| Otel::new(&endpoint, config.id)).transpose()?;
    logs::start(args.log_format, otel.as_ref())?;
    let (bootstrap, supervised) = (args.bootstrap, args.supervised);
    let stop = Stop::watch(supervised)?;
    let served = serve(&config, bootstrap, supervised, &args.record, stop).await;
    if let Some(otel) = otel {
        otel.end().await;
    }
    served
}

/// Makes a node's store, with everyone in the configuration as its first voters.
///
/// # Errors
/// If there is one already, which is left alone, or the directory can't be written.
pub(crate) fn bootstrap(config: &NodeConfig) -> Result {
    std::fs::create_dir_all(&config.data).context(format_args!("can't make {}", config.data.display()))?;
    let voters = Membership::of_voters(config.members.iter().map(|member| NodeId(member.id)));
    let store = RedbStore::create(&config.data, identity(config), &[(GroupId::default(), voters)]);
    store.and_then(RedbStore::close).map_err(|error| match error {
        storage::Error::AlreadyBootstrapped { .. } => {
            Failure::new(format!("{error} (leave --bootstrap out to open it)"))
        }
        error => Failure::new(format!("{}: {error}", config.data.display())),
    })
}

/// Opens a node's store.
fn open(config: &NodeConfig) -> Result<RedbStore> {
    RedbStore::open(&config.data, identity(config)).map_err(|error| match error {
        storage::Error::Missing { .. } => {
            Failure::new(format!("{error} (with --bootstrap, if this node has never run before)"))
        }
        error => Failure::new(format!("{}: {error}", config.data.display())),
    })
}

/// Whose store it is.
pub(crate) fn identity(config: &NodeConfig) -> storage::Identity {
    storage::Identity { cluster: config.cluster.into(), node: NodeId(config.id) }
}

/// Runs the node of this configuration.
async fn serve(config: &NodeConfig, make: bool, supervised: bool, record: &RecordArgs, stop: Stop) -> Result {
    let id = NodeId(config.id);
    // What may be wrong with the configuration comes first: a store is made only if all else is well.
    let refused = |error: io::Error| {
        let address = config.listen_client;
        Failure::new(format!(
            "can't listen for clients on TCP {address}: {error}: does another node run there?"
        ))
    };
    let socket = bind(config.listen_client).map_err(refused)?;
    let transport = transport(config)?.map(Arc::new);
    let files = config.tls.clone().zip(transport.clone());
    // Before the store is opened, which may take its time: a signal would end the process meanwhile.
    let requests = record.requests()?;
    let renewals = tokio::spawn(Renewals::watch()?.serve(files));
    // Before the node: it is heard from its start on.
    let endpoint = config.metrics.map(Endpoint::open).transpose();
    let endpoint = endpoint.map_err(|error| Failure::new(error.to_string()))?;
    if make {
        bootstrap(config)?;
    }
    let store = open(config)?;
    let mut builder = Node::builder(id).store(store).snapshots(config.snapshots.policy());
    builder = builder.snapshot_limits(config.snapshots.limits());
    if let Some(transport) = &transport {
        builder = builder.transport(transport.clone());
    }
    if let Some(recording) = record.recording() {
        builder = builder.record(recording);
    }
    let node = builder.start(Machine::new()).await.map_err(|error| Failure::new(error.to_string()))?;
    let copies = tokio::spawn(requests.serve(node.clone()));

    // Not before: whoever connected while the store is being opened would wait, instead of asking another node.
    let listener = socket.listen(BACKLOG).map_err(refused)?;
    if supervised {
        Event::Ready.tell();
        tokio::spawn(tell_leaders(node.leadership()));
    }
    info!(node = %id, address = %config.listen_client, "serving clients");
    if let Some(address) = config.metrics {
        info!(node = %id, %address, "serving metrics");
    }
    let watched = endpoint.as_ref().map(|_| metrics::watch(node.clone(), transport));
    let (quit, quitting) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(server::serve(node.clone(), members(config), listener, async {
        let _dropped = quitting.await;
    }));
    let stopped = tokio::select! {
        why = stop.wait() => {
            info!(node = %id, %why, "stopping");
            Ok(())
        }
        stopped = node.stopped() => Err(Failure::new(stopped.to_string())),
    };
    let _gone = quit.send(());
    // Requests under way have a moment to end; then the node ends them.
    let served = served.await;
    drop(watched);
    node.shutdown().await;
    renewals.abort();
    copies.abort();
    info!(node = %id, "stopped");
    stopped?;
    served.context("serving clients")?.context("serving clients")
}

/// Takes the port, without letting anybody connect yet.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As a listener does by default: what lingers of earlier connections doesn't hold the port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// What clients are told about who there is.
fn members(config: &NodeConfig) -> server::Cluster {
    let member = |member: &Member| server::Member {
        id: member.id,
        name: format!("node-{}", member.id),
        peer_urls: vec![format!("quic://{}", member.peer)],
        client_urls: member.client.iter().cloned().collect(),
        is_learner: false,
    };
    server::Cluster { id: config.cluster, members: config.members.iter().map(member).collect() }
}

/// The transport, if there is anybody to reach.
fn transport(config: &NodeConfig) -> Result<Option<QuicTransport>> {
    let Some(tls) = &config.tls else { return Ok(None) };
    let identity = certificates::load(tls).map_err(|error| Failure::new(error.to_string()))?;
    let others = config.members.iter().filter(|member| member.id != config.id);
    let peers = others.map(|member| Ok((NodeId(member.id), address_of(member, config.listen_peer)?)));
    let options = quic::Options {
        id: NodeId(config.id),
        cluster: ClusterId(config.cluster),
        peers: peers.collect::<Result<_>>()?,
        ..quic::Options::new(config.listen_peer, identity)
    };
    QuicTransport::bind(options).map(Some).map_err(|error| Failure::new(error.to_string()))
}

/// Where a peer is: a name is looked up when it is dialled, and so may be unknown yet. An address that can't be reached from
/// the node's own never will be.
fn address_of(member: &Member, own: SocketAddr) -> Result<PeerAddress> {
    let address: PeerAddress = member.peer.parse().context(format_args!("node {}", member.id))?;
    let both = own.is_ipv6() && own.ip().is_unspecified();
    match address {
        PeerAddress::Socket(peer) if !both && peer.ip().to_canonical().is_ipv4() != own.is_ipv4() => {
            Err(Failure::new(format!(
                "peer {peer} can't be reached from {own}: one is IPv4, the other IPv6; listen-peer may be [::], for both"
            )))
        }
        address => Ok(address),
    }
}

/// Tells the supervisor who leads, now and whenever it changes.
async fn tell_leaders(mut leadership: tokio::sync::watch::Receiver<quorate_runtime_tokio::Leadership>) {
    let mut told = None;
    loop {
        let now = *leadership.borrow_and_update();
        let event = Event::Leader { term: now.term.0, leader: now.leader.map(|leader| leader.0) };
        if told.replace(event) != Some(event) {
            event.tell();
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

/// What tells a node to stop.
struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    supervisor: Option<tokio::sync::oneshot::Receiver<()>>,
}

impl Stop {
    fn watch(supervised: bool) -> Result<Self> {
        let on = |kind| signal(kind).context("can't handle signals");
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            supervisor: supervised
                .then(supervise::supervisor_gone)
                .transpose()
                .context("can't watch stdin")?,
        })
    }

    /// Waits for it; says what it was.
    async fn wait(mut self) -> &'static str {
        let supervisor = async {
            match self.supervisor {
                Some(told) => {
                    let _sent = told.await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = supervisor => "the supervisor says so, or is gone",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        args: Args,
    }

    fn config(flags: &str) -> Result<NodeConfig, String> {
        let all = std::iter::once("serve").chain(flags.split_whitespace());
        let args = Alone::try_parse_from(all).map_err(|error| error.to_string())?.args;
        args.node.config(args.cluster).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_say_what_a_file_says() {
        let config = config(
            "--id 2 --cluster 00c0ffee00c0ffee --data d --peer 1=a:1 --peer 3=b:3 --client-url 3=http://b:4 \
             --ca ca --cert cert --key key",
        )
        .unwrap();
        let of = |id, peer: &str, client: Option<&str>| Member {
            id,
            peer: peer.into(),
            client: client.map(Into::into),
        };
        assert_eq!(
            config.members,
            [of(1, "a:1", None), of(2, config::DEFAULT_PEER, None), of(3, "b:3", Some("http://b:4"))]
        );
        assert!(config.listen_client.ip().is_loopback() && config.listen_peer.ip().is_loopback());
        assert_eq!(config.tls.unwrap().key, std::path::Path::new("key"));
    }

    #[test]
    fn the_file_that_help_shows_is_a_good_one() {
        let shown = EXAMPLES.split("\n\n").find(|part| part.trim_start().starts_with("format")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.toml");
        std::fs::write(&path, shown).unwrap();
        let config = NodeConfig::read(&path).unwrap();
        assert_eq!((config.id, config.members.len()), (1, 1));
    }

    #[test]
    fn a_node_that_is_alone_needs_little() {
        let config = config("--id 1 --cluster 00c0ffee00c0ffee --data d").unwrap();
        assert_eq!((config.members.len(), config.tls), (1, None));
    }

    #[test]
    fn what_is_missing_or_wrong_is_said() {
        let base = "--id 1 --cluster 00c0ffee00c0ffee --data d";
        for (flags, expected) in [
            ("".to_owned(), "--id <ID>"),
            (format!("{base} --peer 2=a:1"), "--ca <FILE>"),
            (format!("{base} --peer 2:a"), "has no ="),
            (format!("{base} --peer x=a:1"), "is not a node's id"),
            (format!("{base} --peer 2=a"), "is not the address of a peer"),
            (format!("{base} --client-url 7=a:1"), "no --peer has this id"),
            ("--id 0 --cluster 00c0ffee00c0ffee --data d".to_owned(), "0 is not in 1.."),
            ("--id 1 --cluster c0ffee --data d".to_owned(), "is not a cluster id"),
            (format!("{base} --config f"), "cannot be used with"),
            (
                format!("{base} --peer 2=a:1 --peer 2=b:1 --ca a --cert b --key c"),
                "members: node 2 is there twice",
            ),
        ] {
            let error = config(&flags).unwrap_err();
            assert!(error.contains(expected), "{flags}: {error}");
        }
    }
}

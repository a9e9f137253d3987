//! Clients: each sends one request at a time, to a node of its own, and to the next one when that has failed.
//!
//! A few keys are written and read by all of them for a while, then the next few: contention, and still a short history for
//! each key.

use std::{
    collections::BTreeMap,
    error::Error,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Chain, Result};
use bytes::Bytes;
use quorate_coord::pb::{
    etcdserverpb::{
        Compare, PutRequest, RangeRequest, RequestOp, ResponseOp, TxnRequest,
        compare::{CompareResult, CompareTarget, TargetUnion},
        kv_client::KvClient,
        request_op, response_op,
    },
    mvccpb::KeyValue,
};
use tokio::task::JoinHandle;
use tonic::{Code, Status, transport::Channel};

use crate::{
    cluster::kv,
    history::{Op, Outcome, Request},
    random::Random,
};

/// Keys that are in use at a time, and requests for each of them, on average.
const KEYS: u64 = 8;
const PER_KEY: u64 = 40;

/// Keys that are read at a time in the end.
const PAGE: u32 = 1_000;

/// What the clients are like.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// How many.
    pub clients: usize,
    /// The nodes that they ask, by place; client n begins with node n, counted round and round.
    pub nodes: Vec<usize>,
    /// How long each waits between an answer and its next request.
    pub pause: Duration,
    /// A request that has no answer by then is given up, its outcome unknown.
    pub timeout: Duration,
    /// For what they ask.
    pub seed: u64,
    /// Their keys are numbered from here on. Nobody may have written them before.
    pub first_key: u32,
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    started: Instant,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Op>>>,
    first_key: u32,
}

impl Load {
    /// Sets them to work.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn start(options: &LoadOptions) -> Result<Self> {
        let started = Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Shared { count: AtomicU64::new(0), values: AtomicU64::new(1) });
        let mut clients = Vec::new();
        for id in 0..options.clients {
            let mut connections = Vec::new();
            for node in &options.nodes {
                connections.push((*node, kv(*node)?));
            }
            let client = Client {
                id,
                started,
                at: id % options.nodes.len().max(1),
                connections,
                random: Random::new(options.seed.wrapping_mul(1_000).wrapping_add(id as u64)),
                seen: (0, 0),
                shared: shared.clone(),
                options: options.clone(),
            };
            clients.push(tokio::spawn(client.run(stop.clone())));
        }
        Ok(Self { started, stop, clients, first_key: options.first_key })
    }

    /// How long they have been at work: what an [`Op`]'s times count from.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Lets them end what they are at; then every node of these is read by, in full: what all clients have written and read
    /// is the answer, in no order.
    ///
    /// # Errors
    /// If a client has panicked, or a node can't be read within 30 s.
    pub async fn finish(self, read_back: &[usize]) -> Result<Vec<Op>> {
        self.stop.store(true, Relaxed);
        let mut ops = Vec::new();
        for client in self.clients {
            ops.append(&mut client.await?);
        }
        let keys = self.first_key..ops.iter().map(|op| op.key).max().map_or(0, |last| last + 1);
        for (reader, node) in read_back.iter().enumerate() {
            // Other clients than those of the load: each does one thing at a time.
            let id = usize::MAX - reader;
            read_all(&mut ops, self.started, id, *node, keys.clone()).await?;
        }
        Ok(ops)
    }
}

/// Reads every key from a node, linearizably, many at a time: to each key it is a read of its own.
async fn read_all(
    ops: &mut Vec<Op>,
    started: Instant,
    client: usize,
    node: usize,
    keys: Range<u32>,
) -> Result<()> {
    let mut connection = kv(node)?;
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut from = keys.start;
    while from < keys.end {
        let to = from.saturating_add(PAGE).min(keys.end);
        let invoked = started.elapsed();
        let asked = tokio::time::timeout(Duration::from_secs(5), get_range(&mut connection, from..to));
        let failed = match asked.await {
            Ok(Ok((values, revision))) => {
                let ended = started.elapsed();
                ops.extend((from..to).map(|key| {
                    let outcome = Outcome::Read(values.get(&key).copied().unwrap_or(0));
                    Op { client, node, key, request: Request::Get, invoked, ended, outcome, revision }
                }));
                from = to;
                continue;
            }
            Ok(Err(status)) => status.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        anyhow::ensure!(Instant::now() < deadline, "node {} can't be read in the end: {failed}", node + 1);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[derive(Debug)]
struct Shared {
    /// Requests until now.
    count: AtomicU64,
    /// The next value that nobody has written.
    values: AtomicU64,
}

struct Client {
    id: usize,
    started: Instant,
    at: usize,
    connections: Vec<(usize, KvClient<Channel>)>,
    random: Random,
    /// A key and what it held when it was last heard of.
    seen: (u32, u64),
    shared: Arc<Shared>,
    options: LoadOptions,
}

impl Client {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Vec<Op> {
        let mut ops = Vec::new();
        while !stop.load(Relaxed) && !self.connections.is_empty() {
            let (key, request) = self.next();
            let op = self.ask(key, request).await;
            let ok = op.is_ok();
            match op.outcome {
                Outcome::Read(value) | Outcome::Written(value) | Outcome::Compared { before: value, .. } => {
                    self.seen = (key, value);
                }
                Outcome::Refused(_) | Outcome::Unknown(_) => {}
            }
            ops.push(op);
            let pause = if ok {
                self.options.pause
            } else {
                self.at = (self.at + 1) % self.connections.len();
                // The keys are left sooner: each unknown outcome doubles what the judge has to think of.
                self.shared.count.fetch_add(KEYS, Relaxed);
                Duration::from_millis(20 + self.random.below(80))
            };
            tokio::time::sleep(pause).await;
        }
        ops
    }

    fn next(&mut self) -> (u32, Request) {
        let epoch = self.shared.count.fetch_add(1, Relaxed) / (KEYS * PER_KEY);
        let key = u32::try_from(epoch * KEYS + self.random.below(KEYS)).unwrap_or(u32::MAX);
        let key = key.saturating_add(self.options.first_key);
        let fresh = || self.shared.values.fetch_add(1, Relaxed);
        let request = match self.random.below(100) {
            0..40 => Request::Get,
            40..75 => Request::Put { value: fresh() },
            // A comparison has a chance only with what was there a moment ago. 0 stands for a key that isn't there.
            _ => {
                let expected = if self.seen.0 == key { self.seen.1 } else { 0 };
                Request::Cas { expected, value: fresh() }
            }
        };
        (key, request)
    }

    async fn ask(&mut self, key: u32, request: Request) -> Op {
        let (node, connection) = &mut self.connections[self.at];
        let invoked = self.started.elapsed();
        let asked = async {
            match request {
                Request::Get => {
                    get(connection, key).await.map(|(value, revision)| (Outcome::Read(value), revision))
                }
                Request::Put { value } => put(connection, key, value).await,
                Request::Cas { expected, value } => cas(connection, key, expected, value).await,
            }
        };
        let answer = tokio::time::timeout(self.options.timeout, asked).await;
        let ended = self.started.elapsed();
        let (outcome, revision) = match answer {
            Ok(Ok(answered)) => answered,
            Ok(Err(status)) if is_refusal(&status) => (Outcome::Refused(chain(&status)), 0),
            Ok(Err(status)) => (Outcome::Unknown(chain(&status)), 0),
            Err(_) => (Outcome::Unknown("no answer in time".to_owned()), 0),
        };
        Op { client: self.id, node: *node, key, request, invoked, ended, outcome, revision }
    }
}

/// Does the server say so that it did nothing, and will not?
#[must_use]
pub fn is_refusal(status: &Status) -> bool {
    matches!(
        (status.code(), status.message()),
        (Code::Unavailable, "etcdserver: no leader")
            | (Code::ResourceExhausted, "etcdserver: too many requests")
    ) || went_away_before(status)
}

/// Did it say that it goes away, and that this request was not one of those that it has begun (RFC 9113, 6.8)? One that
/// was on its way then meets this. Other clients send it again by themselves; tonic calls it an internal error.
fn went_away_before(status: &Status) -> bool {
    causes(status).any(|cause| {
        let error = cause.downcast_ref::<h2::Error>();
        error.is_some_and(|error| {
            error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
        })
    })
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    Chain::new(status).skip(1)
}

fn chain(status: &Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    for cause in causes(status) {
        text.push_str(&format!(": {cause}"));
    }
    text
}

async fn get(connection: &mut KvClient<Channel>, key: u32) -> Result<(u64, i64), Status> {
    let answer = connection.range(RangeRequest { key: name(key), ..RangeRequest::default() }).await?;
    let answer = answer.into_inner();
    let revision = answer.header.map_or(0, |header| header.revision);
    Ok((value_of(answer.kvs.first())?, revision))
}

async fn get_range(
    connection: &mut KvClient<Channel>,
    keys: Range<u32>,
) -> Result<(BTreeMap<u32, u64>, i64), Status> {
    let request =
        RangeRequest { key: name(keys.start), range_end: name(keys.end), ..RangeRequest::default() };
    let answer = connection.range(request).await?.into_inner();
    let revision = answer.header.map_or(0, |header| header.revision);
    let mut values = BTreeMap::new();
    for kv in &answer.kvs {
        let number = std::str::from_utf8(&kv.key).ok().and_then(|key| key.strip_prefix("key/")?.parse().ok());
        let key = number.ok_or_else(|| Status::internal(format!("a key that nobody wrote: {:?}", kv.key)))?;
        values.insert(key, value_of(Some(kv))?);
    }
    Ok((values, revision))
}

async fn put(connection: &mut KvClient<Channel>, key: u32, value: u64) -> Result<(Outcome, i64), Status> {
    let answer = connection.put(put_request(key, value)).await?.into_inner();
    let revision = answer.header.map_or(0, |header| header.revision);
    Ok((Outcome::Written(value_of(answer.prev_kv.as_ref())?), revision))
}

async fn cas(
    connection: &mut KvClient<Channel>,
    key: u32,
    expected: u64,
    value: u64,
) -> Result<(Outcome, i64), Status> {
    let (target, union) = match expected {
        0 => (CompareTarget::Version, TargetUnion::Version(0)),
        _ => (CompareTarget::Value, TargetUnion::Value(text(expected))),
    };
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: name(key),
        target_union: Some(union),
        ..Compare::default()
    };
    let write = request_op::Request::RequestPut(put_request(key, value));
    let read = request_op::Request::RequestRange(RangeRequest { key: name(key), ..RangeRequest::default() });
    let txn = TxnRequest {
        compare: vec![compare],
        success: vec![RequestOp { request: Some(write) }],
        failure: vec![RequestOp { request: Some(read) }],
    };
    let answer = connection.txn(txn).await?.into_inner();
    let revision = answer.header.map_or(0, |header| header.revision);
    let before = match answer.responses.first() {
        Some(ResponseOp { response: Some(response_op::Response::ResponsePut(put)) }) => {
            value_of(put.prev_kv.as_ref())?
        }
        Some(ResponseOp { response: Some(response_op::Response::ResponseRange(range)) }) => {
            value_of(range.kvs.first())?
        }
        other => return Err(Status::internal(format!("an answer that makes no sense: {other:?}"))),
    };
    Ok((Outcome::Compared { equal: answer.succeeded, before }, revision))
}

fn put_request(key: u32, value: u64) -> PutRequest {
    PutRequest { key: name(key), value: text(value), prev_kv: true, ..PutRequest::default() }
}

fn name(key: u32) -> Bytes {
    format!("key/{key:08}").into()
}

fn text(value: u64) -> Bytes {
    value.to_string().into()
}

fn value_of(kv: Option<&KeyValue>) -> Result<u64, Status> {
    let Some(kv) = kv else { return Ok(0) };
    let number = std::str::from_utf8(&kv.value).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Status::internal(format!("a value that nobody wrote: {:?}", kv.value)))
}

//! Which node to ask, and which to ask next when one fails.
//!
//! A read goes to the next endpoint after any failure that another node may not have. A write goes on only when it was
//! certainly not taken: no connection came about, or the node said so. After any other failure, what became of it is not
//! known, and that is what the user is told: trying again could do it twice.

use std::{
    fmt,
    future::Future,
    str::FromStr,
    time::{Duration, Instant},
};

use tonic::{Code, Request, Status, transport::Channel};

use super::super::{Failure, Result};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(2);

/// The pause after all endpoints were tried in vain: an election takes about a second.
const PAUSE: Duration = Duration::from_millis(100);

/// What a node says when it has done nothing, and will not: `quorate_coord::server` gives these words for nothing else.
const NOT_TAKEN: [&str; 4] = [
    "etcdserver: no leader",
    "etcdserver: too many requests",
    "etcdserver: unhealthy cluster",
    "etcdserver: server stopped",
];

/// The nodes to speak to, in the order of trying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoints(Vec<Endpoint>);

/// Where one node serves clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint(String);

/// What a request does, and so when it may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Changes nothing.
    Read,
    /// May change something.
    Write,
}

impl FromStr for Endpoints {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = text.split(',').map(|part| part.trim().parse()).collect::<Result<Vec<_>, String>>()?;
        Ok(Self(all))
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest.trim_end_matches('/'),
            Some((scheme, _)) => return Err(format!("{scheme}:// is not supported, only http://")),
            None => text,
        };
        super::super::config::check_host_port(rest)?;
        let url = format!("http://{rest}");
        tonic::transport::Endpoint::from_shared(url.clone())
            .map_err(|error| format!("\"{text}\": {error}"))?;
        Ok(Self(url))
    }
}

/// `http://…`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Endpoint {
    /// The endpoint at a port of this machine.
    #[cfg(test)]
    pub(crate) fn local(port: u16) -> Self {
        Self(format!("http://127.0.0.1:{port}"))
    }

    /// A connection, within `limit`.
    pub(crate) async fn connect(&self, limit: Duration) -> Result<Channel, String> {
        let endpoint = tonic::transport::Endpoint::from_shared(self.0.clone())
            .map_err(|error| error.to_string())?
            .connect_timeout(limit.min(CONNECT))
            .tcp_nodelay(true);
        match tokio::time::timeout(limit.min(CONNECT), endpoint.connect()).await {
            Ok(connected) => connected.map_err(|error| root(&error)),
            Err(_) => Err("no connection in time".to_owned()),
        }
    }
}

impl Endpoints {
    /// Each of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.0.iter()
    }

    /// Sends a request to one node after the other until one answers, for no longer than `timeout`. `call` is handed a
    /// connection and the request.
    pub(crate) async fn ask<R, A, F>(
        &self,
        kind: Kind,
        timeout: Duration,
        request: &R,
        call: impl Fn(Channel, Request<R>) -> F,
    ) -> Result<A>
    where
        R: Clone,
        F: Future<Output = Result<tonic::Response<A>, Status>>,
    {
        let deadline = Instant::now() + timeout;
        loop {
            let mut last = String::new();
            for (n, endpoint) in self.0.iter().enumerate() {
                let left = deadline.saturating_duration_since(Instant::now());
                let tried = match endpoint.connect(left).await {
                    Err(why) => Tried::NotTaken(why),
                    Ok(channel) => {
                        let answer = call(channel, Request::new(request.clone()));
                        let left = deadline.saturating_duration_since(Instant::now());
                        // A read leaves time for the others, should this one hang.
                        let limit = match kind {
                            Kind::Read => left.div_f64((self.0.len() - n) as f64),
                            Kind::Write => left,
                        };
                        match tokio::time::timeout(limit, answer).await {
                            Ok(Ok(answer)) => return Ok(answer.into_inner()),
                            Ok(Err(status)) => judge(&status),
                            Err(_) => Tried::Lost(format!("no answer within {:.1} s", limit.as_secs_f64())),
                        }
                    }
                };
                match (tried, kind) {
                    (Tried::Refused(why), _) => return Err(Failure::new(why)),
                    (Tried::Lost(why), Kind::Write) => {
                        return Err(Failure::unknown(format!(
                            "{endpoint}: {why}; whether it was done is not known"
                        )));
                    }
                    (Tried::NotTaken(why), _) | (Tried::Lost(why), Kind::Read) => {
                        last = format!("{endpoint}: {why}");
                    }
                }
            }
            if Instant::now() + PAUSE >= deadline {
                let tried = if self.0.len() > 1 {
                    format!(" ({} endpoints tried)", self.0.len())
                } else {
                    String::new()
                };
                return Err(Failure::new(format!("{last}{tried}")));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// How an attempt failed.
#[derive(Debug, PartialEq, Eq)]
enum Tried {
    /// Certainly nothing was done; another node, or this one later, may do it.
    NotTaken(String),
    /// A node looked at it and said no: every node would.
    Refused(String),
    /// What became of it is not known.
    Lost(String),
}

fn judge(status: &Status) -> Tried {
    let why = status.message();
    if std::error::Error::source(status).is_some() {
        return Tried::Lost(format!("the connection broke ({})", root(status)));
    }
    if NOT_TAKEN.iter().any(|known| why.starts_with(known)) {
        return Tried::NotTaken(why.to_owned());
    }
    match status.code() {
        Code::Unavailable
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Internal
        | Code::Aborted => Tried::Lost(why.to_owned()),
        Code::Unimplemented if why.is_empty() => {
            Tried::Refused("this node does not know that request".to_owned())
        }
        _ => Tried::Refused(why.to_owned()),
    }
}

/// The first cause: "connection refused" says more than "transport error".
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn endpoints_are_urls_or_addresses() {
        let parsed: Endpoints = "127.0.0.1:1, http://localhost:2/".parse().unwrap();
        let shown: Vec<_> = parsed.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["http://127.0.0.1:1", "http://localhost:2"]);
        assert!("https://localhost:2".parse::<Endpoints>().unwrap_err().contains("only http://"));
        assert!("localhost".parse::<Endpoints>().unwrap_err().contains("HOST:PORT"));
        assert!("".parse::<Endpoints>().is_err());
        assert!("a:1,,b:2".parse::<Endpoints>().is_err());
    }

    #[test]
    fn only_what_was_certainly_not_taken_may_be_sent_again() {
        assert_eq!(
            judge(&Status::unavailable("etcdserver: no leader")),
            Tried::NotTaken("etcdserver: no leader".to_owned())
        );
        assert!(matches!(judge(&Status::unavailable("etcdserver: request timed out")), Tried::Lost(_)));
        assert!(matches!(judge(&Status::unavailable("etcdserver: leader changed")), Tried::Lost(_)));
        assert!(matches!(judge(&Status::unknown("anything")), Tried::Lost(_)));
        assert!(matches!(
            judge(&Status::invalid_argument("etcdserver: key is not provided")),
            Tried::Refused(_)
        ));
    }

    /// A server that takes connections and speaks gRPC is not needed: an accepted connection is enough for `call`.
    async fn two_endpoints() -> (Endpoints, Vec<tokio::task::JoinHandle<()>>) {
        let mut endpoints = Vec::new();
        let mut servers = Vec::new();
        for _ in 0..2 {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            endpoints.push(Endpoint::local(listener.local_addr().unwrap().port()));
            servers.push(tokio::spawn(async move {
                let mut held = Vec::new();
                while let Ok(connection) = listener.accept().await {
                    held.push(connection);
                }
            }));
        }
        (Endpoints(endpoints), servers)
    }

    async fn ask(kind: Kind, first: Status) -> (Result<u8>, usize) {
        let (endpoints, servers) = two_endpoints().await;
        let calls = AtomicUsize::new(0);
        let answer = endpoints
            .ask(kind, Duration::from_secs(5), &(), |_, _| {
                let call = calls.fetch_add(1, Ordering::Relaxed);
                let first = first.clone();
                async move { if call == 0 { Err(first) } else { Ok(tonic::Response::new(7)) } }
            })
            .await;
        servers.iter().for_each(tokio::task::JoinHandle::abort);
        (answer, calls.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_read_goes_to_the_next_after_any_failure_of_the_node() {
        assert_eq!(ask(Kind::Read, Status::unavailable("etcdserver: request timed out")).await, (Ok(7), 2));
    }

    #[tokio::test]
    async fn a_write_goes_to_the_next_only_if_it_was_not_taken() {
        assert_eq!(ask(Kind::Write, Status::unavailable("etcdserver: no leader")).await, (Ok(7), 2));
        let (answer, calls) = ask(Kind::Write, Status::unavailable("etcdserver: request timed out")).await;
        assert!(answer.as_ref().is_err_and(Failure::is_unknown), "{answer:?}");
        assert_eq!(calls, 1);
    }

    /// The first endpoint takes the request and then says nothing, as a process that is stopped does.
    async fn ask_one_that_hangs(kind: Kind) -> (Result<u8>, usize) {
        let (endpoints, servers) = two_endpoints().await;
        let calls = AtomicUsize::new(0);
        let answer = endpoints
            .ask(kind, Duration::from_millis(400), &(), |_, _| {
                let call = calls.fetch_add(1, Ordering::Relaxed);
                async move {
                    if call == 0 {
                        std::future::pending::<()>().await;
                    }
                    Ok(tonic::Response::new(7))
                }
            })
            .await;
        servers.iter().for_each(tokio::task::JoinHandle::abort);
        (answer, calls.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_node_that_hangs_leaves_a_read_time_for_the_next_and_a_write_unknown() {
        assert_eq!(ask_one_that_hangs(Kind::Read).await, (Ok(7), 2));
        let (answer, calls) = ask_one_that_hangs(Kind::Write).await;
        assert!(answer.as_ref().is_err_and(Failure::is_unknown), "{answer:?}");
        assert_eq!(calls, 1);
    }

    #[tokio::test]
    async fn what_every_node_would_refuse_is_not_tried_again() {
        let (answer, calls) =
            ask(Kind::Read, Status::invalid_argument("etcdserver: key is not provided")).await;
        assert_eq!((answer, calls), (Err(Failure::new("etcdserver: key is not provided")), 1));
    }

    #[tokio::test]
    async fn a_refused_connection_is_passed_over_and_named_at_the_end() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = Endpoint::local(listener.local_addr().unwrap().port());
        drop(listener);
        let answer: Result<()> = Endpoints(vec![gone.clone(), gone])
            .ask(Kind::Write, Duration::from_millis(50), &(), |_, _| async {
                unreachable!("nothing listens")
            })
            .await;
        let message = answer.unwrap_err().to_string();
        assert!(message.contains("refused") && message.ends_with("(2 endpoints tried)"), "{message}");
    }
}

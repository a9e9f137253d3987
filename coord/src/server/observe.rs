//! Every request, counted and timed, and in the trace that its client says it belongs to.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Instant,
};

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use metrics::{Counter, Histogram, Label, counter, histogram};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use quorate_runtime_tokio::trace::{self, TraceContext};
use tonic::Code;
use tower_layer::Layer;
use tower_service::Service;
use tracing::{Instrument as _, Level, field::Empty, span};

use crate::metrics::names;

/// Where W3C Trace Context has it, and gRPC as well.
const TRACEPARENT: &str = "traceparent";

/// How a request ended, as gRPC says it.
const STATUS: &str = "grpc-status";

/// There are 17 codes.
const CODES: usize = 17;

/// Wraps all services.
#[derive(Clone, Debug)]
pub(super) struct Observe {
    methods: Arc<Methods>,
}

impl Observe {
    /// For the services that these `FileDescriptorSet`s define. What else is asked for is counted as `other`.
    pub(super) fn new(definitions: &[&[u8]]) -> Result<Self, prost::DecodeError> {
        let mut known = HashMap::new();
        for definition in definitions {
            for file in FileDescriptorSet::decode(*definition)?.file {
                let package = file.package().to_owned();
                for service in &file.service {
                    let service_name = format!("{package}.{}", service.name());
                    for method in &service.method {
                        let kind = match (method.client_streaming(), method.server_streaming()) {
                            (false, false) => "unary",
                            (false, true) => "server_stream",
                            (true, false) => "client_stream",
                            (true, true) => "bidi_stream",
                        };
                        let path = format!("/{service_name}/{}", method.name());
                        known.insert(path, Arc::new(Method::new(kind, &service_name, method.name())));
                    }
                }
            }
        }
        let other = Arc::new(Method::new("unary", "other", "other"));
        Ok(Self { methods: Arc::new(Methods { known, other }) })
    }
}

#[derive(Debug)]
struct Methods {
    known: HashMap<String, Arc<Method>>,
    /// A client may ask for anything: it must not be able to make series without end.
    other: Arc<Method>,
}

impl Methods {
    fn of(&self, path: &str) -> &Arc<Method> {
        self.known.get(path).unwrap_or(&self.other)
    }
}

/// The series of one method.
#[derive(Debug)]
struct Method {
    labels: Vec<Label>,
    started: Counter,
    seconds: Histogram,
    /// By code; most never occur.
    handled: [OnceLock<Counter>; CODES],
}

impl Method {
    fn new(kind: &'static str, service: &str, method: &str) -> Self {
        let labels = vec![
            Label::new("grpc_type", kind),
            Label::new("grpc_service", service.to_owned()),
            Label::new("grpc_method", method.to_owned()),
        ];
        Self {
            started: counter!(names::GRPC_STARTED.name, labels.clone()),
            seconds: histogram!(names::GRPC_SECONDS.name, labels.clone()),
            handled: [const { OnceLock::new() }; CODES],
            labels,
        }
    }

    fn handled(&self, code: Code) {
        let Some(handled) = self.handled.get(code as usize) else { return };
        let counter = handled.get_or_init(|| {
            let mut labels = self.labels.clone();
            labels.push(Label::new("grpc_code", format!("{code:?}")));
            counter!(names::GRPC_HANDLED.name, labels)
        });
        counter.increment(1);
    }
}

/// A request under way. One that is dropped before it has a code was cancelled.
struct Call {
    method: Arc<Method>,
    begun: Instant,
    code: Option<Code>,
}

impl Call {
    fn begin(method: Arc<Method>) -> Self {
        method.started.increment(1);
        Self { method, begun: Instant::now(), code: None }
    }

    /// Takes in how it ended, if these say so.
    fn read(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get(STATUS) {
            self.code = Some(Code::from_bytes(status.as_bytes()));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.method.seconds.record(self.begun.elapsed());
        self.method.handled(self.code.unwrap_or(Code::Cancelled));
    }
}

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner, methods: self.methods.clone() }
    }
}

/// A service that is observed.
#[derive(Clone, Debug)]
pub(super) struct Observed<S> {
    inner: S,
    methods: Arc<Methods>,
}

impl<S, B, R> Service<Request<B>> for Observed<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<Counted<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        let mut call = Call::begin(self.methods.of(path).clone());
        let span = span!(target: trace::TARGET, Level::DEBUG, "request", method = path, trace_id = Empty);
        let parent = traceparent(request.headers());
        if let Some(parent) = parent {
            trace::adopt(&span, parent);
            span.record("trace_id", tracing::field::display(parent.trace_id()));
        }
        let answer = self.inner.call(request).instrument(span);
        Box::pin(async move {
            let response = match parent {
                Some(parent) => parent.scope(answer).await,
                None => answer.await,
            }?;
            call.read(response.headers());
            Ok(response.map(|body| Counted { body, call }))
        })
    }
}

/// What the client says. What is no such header is nothing: it must not fail a request.
fn traceparent(headers: &HeaderMap) -> Option<TraceContext> {
    headers.get(TRACEPARENT)?.to_str().ok()?.parse().ok()
}

/// An answer's body, with which the request ends.
pub(super) struct Counted<R> {
    body: R,
    call: Call,
}

impl<R: Body + Unpin> Body for Counted<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.call.read(trailers);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

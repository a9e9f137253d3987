//! What is sent to an OpenTelemetry collector: here, to one of the test's own.

mod common;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{Cluster, until};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use quorate_coord::pb::etcdserverpb::PutRequest;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, async_trait, transport::Server};

/// Keeps the spans that it is sent, by trace: each with the node that sent it.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Traces>>);

type Traces = BTreeMap<Vec<u8>, Vec<(String, Span)>>;

#[async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
            let node = attributes.iter().find(|attribute| attribute.key == "service.instance.id");
            let node = format!("{:?}", node.and_then(|attribute| attribute.value.clone()));
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let mut traces = self.0.lock().unwrap();
                traces.entry(span.trace_id.clone()).or_default().push((node.clone(), span));
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// The collector answers while the test waits for a process to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_one_trace_that_the_client_has_begun() {
    let collector = Collector::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = Server::builder().add_service(TraceServiceServer::new(collector.clone()));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

    let mut cluster = Cluster::make(3);
    for node in &mut cluster.nodes {
        node.start_with(&["--otlp", &endpoint]);
    }
    let leader = cluster.wait_for_leader().await;
    let follower = cluster.nodes.iter().find(|node| node.id != leader).unwrap();
    let follower_id = follower.id;
    let put = |key: &str, flags: &str| {
        let mut put = Request::new(PutRequest { key: key.to_owned().into(), ..PutRequest::default() });
        let parent = format!("00-{}-{}-{flags}", key.repeat(32), "7".repeat(16));
        put.metadata_mut().insert("traceparent", parent.parse().unwrap());
        put
    };
    let mut kv = follower.kv();
    kv.put(put("a", "01")).await.unwrap();
    // This one its client doesn't want to see.
    kv.put(put("b", "00")).await.unwrap();
    // What was not sent yet is sent at the end.
    for node in &mut cluster.nodes {
        node.stop("TERM");
    }

    let trace = vec![0xaa; 16];
    until("the trace has come", Duration::from_secs(30), async || {
        collector.0.lock().unwrap().get(&trace).is_some_and(|spans| spans.len() == 7)
    })
    .await;
    let traces = collector.0.lock().unwrap();
    assert!(!traces.contains_key(&vec![0xbb; 16]), "nobody wanted that one");
    let spans = &traces[&trace];
    let the = |name: &str| {
        let (node, span) = spans.iter().find(|(_, span)| span.name == name).unwrap();
        (node.as_str(), span)
    };
    let mut parent = vec![0x77; 8];
    for (name, on) in
        [("request", follower_id), ("propose", follower_id), ("forward", follower_id), ("serve", leader)]
    {
        let (node, span) = the(name);
        assert!(node.contains(&format!("node-{on}")), "{name} on {node}");
        assert_eq!(span.parent_span_id, parent, "{name}");
        parent.clone_from(&span.span_id);
    }
    let mut end = 0;
    for name in ["append", "commit", "apply"] {
        let (node, span) = the(name);
        assert!(node.contains(&format!("node-{leader}")), "{name} on {node}");
        assert_eq!(span.parent_span_id, parent, "{name} is within serve");
        assert!(span.start_time_unix_nano >= end && span.end_time_unix_nano >= span.start_time_unix_nano);
        end = span.start_time_unix_nano;
    }
}

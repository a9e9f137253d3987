//! Spans, as a subscriber sees them.

#[allow(dead_code, reason = "each test uses its own part")]
#[path = "node/support.rs"]
mod support;

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex},
};

use quorate_core::NodeId;
use quorate_runtime_tokio::trace::{TARGET, TraceContext};
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
    registry::LookupSpan,
};

use support::{Cluster, within};

/// A span, as far as it was told.
#[derive(Clone, Debug, Default)]
struct Span {
    name: &'static str,
    parent: Option<u64>,
    fields: BTreeMap<&'static str, String>,
    closed: bool,
}

/// Takes down all spans of the target.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<BTreeMap<u64, Span>>>);

struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        if attributes.metadata().target() != TARGET {
            return;
        }
        let parent = context.span(id).and_then(|span| span.parent().map(|parent| parent.id().into_u64()));
        let mut span = Span { name: attributes.metadata().name(), parent, ..Span::default() };
        attributes.record(&mut Fields(&mut span.fields));
        // An id may be used again once its span is closed.
        let mut spans = self.0.lock().unwrap();
        let id = id.into_u64();
        assert!(spans.get(&id).is_none_or(|before| before.closed), "a span was begun twice");
        spans.insert(id, span);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, _: Context<'_, S>) {
        if let Some(span) = self.0.lock().unwrap().get_mut(&id.into_u64()) {
            values.record(&mut Fields(&mut span.fields));
        }
    }

    fn on_close(&self, id: span::Id, _: Context<'_, S>) {
        if let Some(span) = self.0.lock().unwrap().get_mut(&id.into_u64()) {
            span.closed = true;
        }
    }
}

impl Spans {
    fn taken(&self) -> Vec<(u64, Span)> {
        self.0.lock().unwrap().iter().map(|(id, span)| (*id, span.clone())).collect()
    }

    /// The only one of this name.
    fn the(&self, name: &str) -> (u64, Span) {
        let all = self.taken();
        let mut named = all.iter().filter(|(_, span)| span.name == name);
        match (named.next(), named.next()) {
            (Some(span), None) => span.clone(),
            _ => panic!("there is not exactly one {name} in {all:#?}"),
        }
    }

    fn clear(&self) {
        self.0.lock().unwrap().clear();
    }
}

/// Ends when the spans of the leader have, too: they are closed by threads.
async fn closed(spans: &Spans) {
    within(async {
        while spans.taken().iter().any(|(_, span)| !span.closed) {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// One after the other: the subscriber is the whole process's, for spans are made on the nodes' threads, too.
#[tokio::test]
async fn a_proposal_is_one_trace_on_all_nodes() {
    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.others(leader)[0];
    within(cluster.node(leader).propose("first")).await.unwrap();
    cluster.converged().await;

    // From a follower: its own spans, and the leader's.
    spans.clear();
    within(cluster.node(follower).propose("word")).await.unwrap();
    closed(&spans).await;
    let (propose_id, propose) = spans.the("propose");
    let (_, forward) = spans.the("forward");
    let (serve_id, serve) = spans.the("serve");
    let on = |span: &Span| span.fields["node"].parse().map(NodeId).unwrap();
    assert_eq!((on(&propose), on(&forward), on(&serve)), (follower, follower, leader));
    assert_eq!(serve.fields["from"], follower.to_string());
    assert_eq!(forward.fields["leader"], leader.to_string());
    assert_eq!(propose.fields["outcome"], "done");
    assert_eq!(forward.parent, Some(propose_id));
    let trace = &propose.fields["trace_id"];
    assert_eq!(trace.len(), 32);
    assert_eq!(&serve.fields["trace_id"], trace, "the same on both");
    let status = cluster.node(leader).status().await.unwrap().raft;
    for name in ["append", "commit", "apply"] {
        let (_, stage) = spans.the(name);
        assert_eq!(on(&stage), leader, "{name}");
        assert_eq!(stage.parent, Some(serve_id), "{name}");
        assert_eq!(stage.fields["term"], status.term.to_string(), "{name}");
        assert_eq!(stage.fields["index"], status.last.index.to_string(), "{name}");
        assert_eq!(stage.fields["group"], "0", "{name}");
    }

    // From the leader, in a trace that the caller has.
    spans.clear();
    let context = TraceContext::random();
    within(context.scope(cluster.node(leader).propose("another"))).await.unwrap();
    closed(&spans).await;
    let (propose_id, propose) = spans.the("propose");
    assert_eq!(propose.fields["trace_id"], context.trace_id().to_string());
    for name in ["append", "commit", "apply"] {
        assert_eq!(spans.the(name).1.parent, Some(propose_id), "{name}");
    }
    assert!(!spans.taken().iter().any(|(_, span)| ["forward", "serve"].contains(&span.name)));

    // Two without one are two traces; and one that comes to nothing says so.
    spans.clear();
    let again = within(cluster.node(leader).propose(vec![0; 200 << 20])).await;
    assert!(again.is_err());
    let (_, refused) = spans.the("propose");
    assert_eq!(refused.fields["outcome"], "too_big");
    assert_ne!(refused.fields["trace_id"], context.trace_id().to_string());
    cluster.shutdown().await;
}

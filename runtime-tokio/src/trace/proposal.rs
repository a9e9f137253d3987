//! The spans of one proposal.

use quorate_core::{GroupId, Index, NodeId, Term};
use tracing::{Level, Span, field::Empty, span};

use super::{TARGET, TraceContext, adopt, context_of};

/// What one node does for a proposal, from when it hears of it until it has an answer.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    node: NodeId,
    group: GroupId,
    pub(crate) span: Span,
    /// What is to be handed on.
    pub(crate) context: Option<TraceContext>,
}

impl Request {
    /// It was made here.
    pub(crate) fn propose(node: NodeId, group: GroupId, bytes: usize) -> Self {
        let span = span!(
            target: TARGET, Level::DEBUG, "propose",
            %node, %group, bytes, trace_id = Empty, outcome = Empty
        );
        let context = context_of(&span)
            .or_else(TraceContext::current)
            .or_else(|| (!span.is_disabled()).then(TraceContext::random));
        Self { node, group, span, context }.named()
    }

    /// It was forwarded here.
    pub(crate) fn serve(
        node: NodeId,
        group: GroupId,
        from: NodeId,
        bytes: usize,
        context: Option<TraceContext>,
    ) -> Self {
        let span = span!(
            target: TARGET, parent: None, Level::DEBUG, "serve",
            %node, %group, %from, bytes, trace_id = Empty
        );
        if let Some(context) = context {
            adopt(&span, context);
        }
        let context = context.or_else(|| context_of(&span));
        Self { node, group, span, context }.named()
    }

    /// It is handed on to `leader`.
    pub(crate) fn forward(&self, leader: NodeId) -> (Span, Option<TraceContext>) {
        if self.span.is_disabled() {
            return (Span::none(), self.context);
        }
        let (node, group) = (self.node, self.group);
        let span = span!(target: TARGET, parent: &self.span, Level::DEBUG, "forward", %node, %group, %leader);
        let context = context_of(&span).or(self.context);
        (span, context)
    }

    /// It is to be replicated by this node.
    pub(crate) fn replicate(&self) -> Stages {
        if self.span.is_disabled() {
            return Stages(None);
        }
        let (node, group) = (self.node, self.group);
        let stage = span!(
            target: TARGET, parent: &self.span, Level::DEBUG, "append",
            %node, %group, term = Empty, index = Empty
        );
        Stages(Some(Box::new(Stage { node, group, request: self.span.clone(), stage, at: None })))
    }

    /// It has ended so.
    pub(crate) fn ended(&self, outcome: &'static str) {
        self.span.record("outcome", outcome);
    }

    fn named(self) -> Self {
        if let Some(context) = self.context.filter(|_| !self.span.is_disabled()) {
            self.span.record("trace_id", tracing::field::display(context.trace_id()));
        }
        self
    }
}

/// What the leader does for a proposal, stage by stage. Nothing, if nobody wants to know.
#[derive(Debug)]
pub(crate) struct Stages(Option<Box<Stage>>);

#[derive(Debug)]
struct Stage {
    node: NodeId,
    group: GroupId,
    request: Span,
    /// Where it is now.
    stage: Span,
    at: Option<(Term, Index)>,
}

impl Stages {
    #[cfg(test)]
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    /// It is in the log.
    pub(crate) fn appended(&mut self, term: Term, index: Index) {
        let Some(stage) = &mut self.0 else { return };
        stage.stage.record("term", term.0).record("index", index.0);
        stage.at = Some((term, index));
        stage.stage = stage.next(|request, node, group, term, index| {
            span!(target: TARGET, parent: request, Level::DEBUG, "commit", %node, %group, term, index)
        });
    }

    /// It is committed, and handed to the state machine.
    pub(crate) fn committed(&mut self) {
        let Some(stage) = &mut self.0 else { return };
        stage.stage = stage.next(|request, node, group, term, index| {
            span!(target: TARGET, parent: request, Level::DEBUG, "apply", %node, %group, term, index)
        });
    }

    /// Does `work` within the stage that it is in.
    pub(crate) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some(stage) => stage.stage.in_scope(work),
            None => work(),
        }
    }
}

impl Stage {
    fn next(&self, make: impl FnOnce(&Span, NodeId, GroupId, u64, u64) -> Span) -> Span {
        let (term, index) = self.at.map_or((0, 0), |(term, index)| (term.0, index.0));
        make(&self.request, self.node, self.group, term, index)
    }
}

//! Spans, sent to an OpenTelemetry collector.
//!
//! They are those of [`quorate_runtime_tokio::trace`] and of the services, whatever is logged; on all nodes those of one
//! request are one trace, which the client may have begun.

#[cfg(feature = "otel")]
pub(super) use export::Otel;
#[cfg(not(feature = "otel"))]
pub(super) use none::Otel;

#[cfg(feature = "otel")]
mod export {
    use std::{
        num::{NonZeroU64, NonZeroU128},
        time::Duration,
    };

    use opentelemetry::{
        Context, KeyValue,
        trace::{
            SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
        },
    };
    use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
    use opentelemetry_sdk::{
        Resource,
        trace::{Sampler, SdkTracerProvider},
    };
    use quorate_runtime_tokio::trace::{self, Propagator, TARGET, TraceContext};
    use tracing::{Level, Span, Subscriber};
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

    use crate::cli::{Failure, Result};

    /// How long a node that stops waits for the collector to take the last spans. With it an orderly stop still ends before
    /// a supervisor loses its patience.
    const PATIENCE: Duration = Duration::from_secs(1);

    /// The way to a collector.
    #[derive(Debug)]
    pub(in crate::cli) struct Otel {
        provider: SdkTracerProvider,
    }

    impl Otel {
        /// To the collector at `endpoint` (OTLP over gRPC), as node `id`.
        ///
        /// # Errors
        /// If that is no URL.
        pub(in crate::cli) fn new(endpoint: &str, id: u64) -> Result<Self> {
            let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
            let exporter =
                exporter.map_err(|error| Failure::new(format!("--otlp \"{endpoint}\": {error}")))?;
            let resource = Resource::builder()
                .with_service_name("quorate")
                .with_attributes([
                    KeyValue::new("service.instance.id", format!("node-{id}")),
                    KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                ])
                .build();
            let provider = SdkTracerProvider::builder()
                .with_batch_exporter(exporter)
                // What a client has begun is taken down if the client does so.
                .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
                .with_resource(resource)
                .build();
            trace::set_propagator(Contexts).map_err(|error| Failure::new(error.to_string()))?;
            Ok(Self { provider })
        }

        /// What hands the spans over.
        pub(in crate::cli) fn layer<S>(&self) -> Box<dyn Layer<S> + Send + Sync>
        where
            S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
        {
            let wanted = Targets::new().with_target(TARGET, Level::DEBUG);
            let tracer = self.provider.tracer("quorate");
            tracing_opentelemetry::layer().with_tracer(tracer).with_filter(wanted).boxed()
        }

        /// Sends what was not sent yet, if the collector takes it at once.
        pub(in crate::cli) async fn end(self) {
            let end = move || self.provider.shutdown_with_timeout(PATIENCE);
            let ended = tokio::task::spawn_blocking(end).await;
            if let Ok(Err(error)) = ended {
                tracing::warn!(%error, "the last spans could not be sent");
            }
        }
    }

    /// Between OpenTelemetry's idea of a context and the runtime's.
    #[derive(Debug)]
    struct Contexts;

    impl Propagator for Contexts {
        fn context(&self, span: &Span) -> Option<TraceContext> {
            let context = span.context();
            let inner = context.span().span_context().clone();
            let trace = NonZeroU128::new(u128::from_be_bytes(inner.trace_id().to_bytes()))?;
            let span = NonZeroU64::new(u64::from_be_bytes(inner.span_id().to_bytes()))?;
            Some(TraceContext::new(trace::TraceId(trace), span, inner.is_sampled()))
        }

        fn adopt(&self, span: &Span, parent: TraceContext) {
            let flags = if parent.sampled() { TraceFlags::SAMPLED } else { TraceFlags::default() };
            let parent = SpanContext::new(
                TraceId::from_bytes(parent.trace_id().0.get().to_be_bytes()),
                SpanId::from_bytes(parent.span_id().get().to_be_bytes()),
                flags,
                true,
                TraceState::NONE,
            );
            // Only of a span that OpenTelemetry doesn't see, which needs no parent.
            let _unseen = span.set_parent(Context::new().with_remote_span_context(parent));
        }
    }
}

#[cfg(not(feature = "otel"))]
mod none {
    use tracing::Subscriber;
    use tracing_subscriber::{Layer, layer::Identity};

    use crate::cli::{Failure, Result};

    /// This program was built without it.
    #[derive(Debug)]
    pub(in crate::cli) enum Otel {}

    impl Otel {
        /// Says so.
        ///
        /// # Errors
        /// Always.
        pub(in crate::cli) fn new(_endpoint: &str, _id: u64) -> Result<Self> {
            Err(Failure::new("--otlp: this program was built without it: build with `--features otel`"))
        }

        pub(in crate::cli) fn layer<S: Subscriber>(&self) -> Box<dyn Layer<S> + Send + Sync> {
            Box::new(Identity::new())
        }

        pub(in crate::cli) async fn end(self) {}
    }
}

//! Where Prometheus asks.

use std::{net::SocketAddr, time::Duration};

use metrics::gauge;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use quorate_runtime_tokio::metrics::names::{COUNT_BUCKETS, SECONDS_BUCKETS};
use tokio::task::JoinHandle;

use super::{describe, etcd::Aliases, names};

/// What histograms were told is gathered from their buffers this often, and so the buffers stay small.
const UPKEEP: Duration = Duration::from_secs(1);

/// Serves all that this process tells about itself at `http://ADDRESS/metrics`, in Prometheus' text format, to whoever asks:
/// without TLS and without authentication. Ends when it is dropped; what is told is taken in for as long as the process lives.
#[derive(Debug)]
pub struct Endpoint {
    server: JoinHandle<()>,
}

/// Why it can't be had.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The address can't be had.
    #[error("can't serve metrics on TCP {address}: {why}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        why: String,
    },
    /// The process has a recorder of metrics already.
    #[error("the process has a recorder of metrics already")]
    Recorder,
    /// Called outside a tokio runtime.
    #[error("metrics are served by a tokio runtime: call this within one")]
    NoRuntime,
}

impl Endpoint {
    /// Listens on `address`, and takes in what this process tells from now on.
    ///
    /// # Errors
    /// If the address can't be had, or the process has another recorder.
    pub fn open(address: SocketAddr) -> Result<Self, EndpointError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| EndpointError::NoRuntime)?;
        let failed = |error: BuildError| EndpointError::Listen { address, why: why(&error) };
        let buckets = |builder: PrometheusBuilder, suffix: &str, bounds| {
            builder.set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), bounds)
        };
        let builder = PrometheusBuilder::new().with_http_listener(address).upkeep_timeout(UPKEEP);
        let builder = buckets(builder, "_seconds", SECONDS_BUCKETS).map_err(failed)?;
        let builder = buckets(builder, "_writes", COUNT_BUCKETS).map_err(failed)?;
        let (recorder, exporter) = builder.build().map_err(failed)?;
        metrics::set_global_recorder(Aliases(recorder)).map_err(|_| EndpointError::Recorder)?;
        describe();
        gauge!(names::BUILD_INFO.name, "version" => env!("CARGO_PKG_VERSION")).set(1);
        let server = runtime.spawn(async move {
            if let Err(error) = exporter.await {
                tracing::error!(%address, ?error, "metrics are served no more");
            }
        });
        Ok(Self { server })
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn why(error: &BuildError) -> String {
    match error {
        BuildError::FailedToCreateHTTPListener(why) => why.clone(),
        other => other.to_string(),
    }
}

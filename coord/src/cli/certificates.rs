//! Certificates, read when the node starts and again whenever it is asked for.

use std::sync::Arc;

use quorate_transport_quic::{
    QuicTransport,
    pki::{Identity, PkiError},
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info};

use super::{Result, config::Tls, failure::Context as _};

/// What these files hold.
pub(crate) fn load(Tls { ca, cert, key }: &Tls) -> Result<Identity, PkiError> {
    Identity::load(cert, key, ca)
}

/// The files may have changed: SIGHUP.
pub(crate) struct Renewals {
    asked: Signal,
}

impl Renewals {
    /// From now on SIGHUP doesn't end the process.
    pub(crate) fn watch() -> Result<Self> {
        Ok(Self { asked: signal(SignalKind::hangup()).context("can't handle signals")? })
    }

    /// Reads the files whenever it is asked for. What can't be used is said, and what was before stays in force.
    pub(crate) async fn serve(mut self, files: Option<(Tls, Arc<QuicTransport>)>) {
        while self.asked.recv().await.is_some() {
            let Some((tls, transport)) = &files else {
                info!("SIGHUP: this node has no certificates to read again");
                continue;
            };
            match load(tls).and_then(|identity| transport.set_identity(&identity)) {
                Ok(()) => info!(cert = %tls.cert.display(), "SIGHUP: the certificates were read again"),
                Err(why) => {
                    error!(%why, "SIGHUP: the certificates were not taken; those from before stay in force");
                }
            }
        }
    }
}

//! The node's own threads.

#[cfg(feature = "record")]
use std::{io, thread};

#[cfg(feature = "record")]
use quorate_core::NodeId;
use tokio::sync::mpsc;

/// Held by each thread for as long as it runs: when the last one is gone, [`Ended`] knows.
pub(crate) type Alive = mpsc::Sender<()>;

/// Waits for the threads.
pub(crate) struct Ended(mpsc::Receiver<()>);

/// A pair to wait for threads with.
pub(crate) fn roll_call() -> (Alive, Ended) {
    let (alive, ended) = mpsc::channel(1);
    (alive, Ended(ended))
}

impl Ended {
    /// Until no thread is left.
    pub(crate) async fn wait(&mut self) {
        let _nothing_is_ever_sent = self.0.recv().await;
    }
}

#[cfg(feature = "record")]
/// Starts a thread named for its node and its job.
pub(crate) fn spawn(
    node: NodeId,
    job: &str,
    alive: &Alive,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let alive = alive.clone();
    thread::Builder::new().name(format!("quorate-{node}-{job}")).spawn(move || {
        // What `run` owns, a store maybe, is dropped before the thread counts as ended.
        run();
        drop(alive);
    })?;
    Ok(())
}

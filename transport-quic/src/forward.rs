//! Requests handed on to another node, one on a stream of its own, and their answers.
//!
//! Whether a request may have been acted upon is known: a node looks only at a whole request, so one of which some bytes
//! never left was certainly not delivered.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use quinn::{ReadError, ReadToEndError, RecvStream, SendStream, WriteError};
use quorate_core::{GroupId, NodeId};
use quorate_runtime_tokio::{ForwardError, Inbound};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    code::Code,
    link::{self, PIECES},
    peer::{Link, Peer},
    shared::Shared,
    stream::{ENVELOPE, Kind, Parser, Violation, envelope, hello},
};

/// How an answer begins.
mod status {
    /// The answer follows.
    pub(super) const ANSWERED: u8 = 0;
    /// Nothing was done; why follows.
    pub(super) const NOT_DELIVERED: u8 = 1;
    /// It is not known what was done; why follows.
    pub(super) const UNKNOWN: u8 = 2;
}

/// Hands `request` to the peer at the other end of `link`.
pub(crate) async fn ask(
    shared: &Shared,
    peer: &Peer,
    group: GroupId,
    request: Bytes,
) -> Result<Bytes, ForwardError> {
    let to = peer.id;
    let not_delivered = |why: String| ForwardError::NotDelivered { to, why };
    let busy = |why: String| ForwardError::Busy { to, why };
    let unknown = |why: String| ForwardError::Unknown { to, why };
    let limit = shared.limits.forward_bytes;
    if request.len() > limit {
        return Err(not_delivered(format!("a request of {} bytes is longer than {limit}", request.len())));
    }
    let link = peer.link().ok_or_else(|| not_delivered("there is no connection".into()))?;
    peer.forwarded.add(1);
    let bytes = request.len() + ENVELOPE;
    let until = Instant::now() + shared.limits.forward_timeout;
    let _turn = turn(&link, shared.limits.forward_timeout / 2).await.map_err(busy)?;
    let (mut send, mut answer) = match timeout_at(until, write(&link, group, request)).await {
        Ok(Ok(streams)) => streams,
        // Some of it was never taken by the stream: no whole request can arrive.
        Ok(Err(err)) => return Err(not_delivered(err.to_string())),
        Err(_) => return Err(not_delivered("the peer takes nothing in".into())),
    };
    // From here on, the peer may have it all.
    let _already_closed = send.finish();
    peer.forward_sent_bytes.add(bytes as u64);
    match timeout_at(until, answer.read_to_end(limit + 1)).await {
        Ok(Ok(answer)) => {
            peer.forward_received_bytes.add(answer.len() as u64);
            read_answer(to, answer)
        }
        Ok(Err(ReadToEndError::Read(ReadError::Reset(code)))) if code == Code::Busy.number() => {
            Err(busy("it holds as much as it may".into()))
        }
        Ok(Err(ReadToEndError::Read(err))) => Err(unknown(err.to_string())),
        Ok(Err(ReadToEndError::TooLong)) => Err(unknown(format!("the answer is longer than {limit} bytes"))),
        Err(_) => Err(unknown(format!("nothing has come within {:?}", shared.limits.forward_timeout))),
    }
}

/// Waits until one more request may be on its way, unless too many wait already, or for too long: why not is the error.
async fn turn(link: &Link, patience: Duration) -> Result<SemaphorePermit<'_>, String> {
    if let Ok(turn) = link.forwards.try_acquire() {
        return Ok(turn);
    }
    let _place = link.waiting.try_acquire().map_err(|_full| "too many requests wait for their turn")?;
    match timeout(patience, link.forwards.acquire()).await {
        Ok(turn) => turn.map_err(|closed| closed.to_string()),
        Err(_elapsed) => Err(format!("no turn has come within {patience:?}")),
    }
}

async fn write(link: &Link, group: GroupId, request: Bytes) -> Result<(SendStream, RecvStream), WriteError> {
    let (send, recv) = link.connection.open_bi().await?;
    let mut send = Unfinished(Some(send));
    let Some(stream) = &mut send.0 else { return Err(WriteError::ClosedStream) };
    stream.set_priority(link::priority(Kind::Forward))?;
    // Its length is within the limit, which is far below 4 GiB.
    let envelope = envelope(group, request.len()).ok_or(WriteError::ClosedStream)?;
    let head = [&hello(link.version, Kind::Forward)[..], &envelope[..]].concat();
    stream.write_all_chunks(&mut [head.into(), request]).await?;
    send.0.take().map(|send| (send, recv)).ok_or(WriteError::ClosedStream)
}

/// A stream that doesn't end as if it were whole, should its writer be given up halfway.
struct Unfinished(Option<SendStream>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(send) = &mut self.0 {
            let _already_closed = send.reset(Code::Abandoned.number());
        }
    }
}

fn read_answer(from: NodeId, answer: Vec<u8>) -> Result<Bytes, ForwardError> {
    let mut answer = Bytes::from(answer);
    let status = (!answer.is_empty()).then(|| answer.split_to(1)[0]);
    match status {
        Some(status::ANSWERED) => Ok(answer),
        Some(status::NOT_DELIVERED) => Err(ForwardError::NotDelivered { to: from, why: text(&answer) }),
        Some(status::UNKNOWN) => Err(ForwardError::Unknown { to: from, why: text(&answer) }),
        Some(other) => {
            Err(ForwardError::Unknown { to: from, why: format!("an answer of unknown kind {other}") })
        }
        None => Err(ForwardError::Unknown { to: from, why: "an empty answer".into() }),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Serves a request that the peer forwards, once its stream's hello has been read.
pub(crate) async fn serve(
    shared: &Shared,
    peer: &Peer,
    mut send: SendStream,
    mut recv: RecvStream,
    inbound: &dyn Inbound,
) -> Result<(), Violation> {
    let limits = &shared.limits;
    let request =
        timeout(limits.forward_timeout, read_request(&mut recv, limits.forward_bytes, &shared.memory));
    let (group, request, memory) = match request.await.unwrap_or(Ok(Request::Gone))? {
        Request::Whole { group, body, memory } => (group, body, memory),
        Request::Busy => {
            let _ended = (send.reset(Code::Busy.number()), recv.stop(Code::Busy.number()));
            return Ok(());
        }
        Request::Gone => return Ok(()),
    };
    peer.served.add(1);
    peer.forward_received_bytes.add((request.len() + ENVELOPE) as u64);
    peer.mark_steady(true);
    let answer = tokio::select! {
        answer = inbound.forwarded(group, peer.id, request) => answer,
        // Whoever asked has gone away: nobody waits for the answer.
        _ = send.stopped() => return Ok(()),
    };

    // The request is gone. Whoever is slow to read the answer must not keep others from asking.
    drop(memory);
    let (status, body) = match answer {
        Ok(answer) if answer.len() > limits.forward_bytes => {
            let why = format!("the answer has {} bytes, more than {}", answer.len(), limits.forward_bytes);
            (status::UNKNOWN, why.into())
        }
        Ok(answer) => (status::ANSWERED, answer),
        Err(ForwardError::NotDelivered { why, .. }) => (status::NOT_DELIVERED, why.into()),
        // As if it had not been looked at: it comes to the same, and every release knows the code.
        Err(ForwardError::Busy { .. }) => {
            let _already_closed = send.reset(Code::Busy.number());
            return Ok(());
        }
        Err(ForwardError::Unknown { why, .. }) => (status::UNKNOWN, why.into()),
    };
    let _best_effort = send.set_priority(link::priority(Kind::Forward));
    let bytes = 1 + body.len() as u64;
    let mut answer = [Bytes::copy_from_slice(&[status]), body];
    match timeout(limits.forward_timeout, send.write_all_chunks(&mut answer)).await {
        Ok(Ok(())) => {
            peer.forward_sent_bytes.add(bytes);
            let _already_closed = send.finish();
        }
        Ok(Err(_gone)) => {}
        Err(_elapsed) => drop(send.reset(Code::Abandoned.number())),
    }
    Ok(())
}

/// What has come on a stream.
enum Request {
    /// All of it, and the memory that it is counted for.
    Whole { group: GroupId, body: Bytes, memory: Option<OwnedSemaphorePermit> },
    /// Nothing was looked at: too much is held already.
    Busy,
    /// The peer has gone away.
    Gone,
}

async fn read_request(
    recv: &mut RecvStream,
    longest: usize,
    memory: &Arc<Semaphore>,
) -> Result<Request, Violation> {
    let mut parser = Parser::new(longest);
    let mut held: Option<OwnedSemaphorePermit> = None;
    let mut pieces: [Bytes; PIECES] = std::array::from_fn(|_| Bytes::new());
    loop {
        let count = match recv.read_chunks(&mut pieces).await {
            Ok(Some(count)) => count,
            Ok(None) => break,
            Err(_) => return Ok(Request::Gone),
        };
        for piece in pieces.iter_mut().take(count) {
            let piece = std::mem::take(piece);
            let Ok(more) = memory.clone().try_acquire_many_owned(piece.len() as u32) else {
                return Ok(Request::Busy);
            };
            match &mut held {
                Some(held) => held.merge(more),
                None => held = Some(more),
            }
            parser.push(&piece);
        }
        // A wrong length is refused at once; the request is taken when its stream has ended.
        parser.check_only()?;
    }
    if let Some((group, body)) = parser.next()? {
        return Ok(Request::Whole { group, body: Bytes::copy_from_slice(body), memory: held });
    }
    parser.end()?;
    Ok(Request::Gone)
}

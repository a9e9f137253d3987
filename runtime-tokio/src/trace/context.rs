//! W3C Trace Context: which trace a request belongs to, as a header, as bytes, and as what a task runs in.

use std::{
    cell::Cell,
    fmt,
    hash::{BuildHasher as _, RandomState},
    num::{NonZeroU64, NonZeroU128},
    str::FromStr,
    sync::OnceLock,
};

/// Which trace something belongs to, and which span of it has caused it.
///
/// As text it is the header `traceparent` of [W3C Trace Context](https://www.w3.org/TR/trace-context/):
///
/// ```
/// # use quorate_runtime_tokio::trace::TraceContext;
/// let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let context: TraceContext = header.parse()?;
/// assert!(context.sampled());
/// assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
/// assert_eq!(context.to_string(), header);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TraceContext {
    trace: TraceId,
    span: NonZeroU64,
    flags: u8,
}

/// Names a trace; shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TraceId(pub NonZeroU128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Why a text is no `traceparent`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TraceparentError {
    /// It doesn't have the parts that it should have, or they are of another length.
    #[error("it is not VERSION-TRACE-SPAN-FLAGS of 2, 32, 16 and 2 hexadecimal digits in lower case")]
    Shape,
    /// Version ff, which there is not, by definition.
    #[error("there is no version ff")]
    Version,
    /// The trace or the span is all zeros.
    #[error("a trace or a span of zeros is none")]
    Zero,
}

/// The flag that says that the trace is taken down.
const SAMPLED: u8 = 1;

/// How long the text of version 00 is, and what every later version begins with.
const TEXT: usize = 55;

tokio::task_local! {
    static CURRENT: TraceContext;
}

impl TraceContext {
    /// How many bytes [`TraceContext::to_bytes`] gives.
    pub const BYTES: usize = 25;

    /// Puts one together. `sampled`: somebody takes the trace down.
    #[must_use]
    pub const fn new(trace: TraceId, span: NonZeroU64, sampled: bool) -> Self {
        Self { trace, span, flags: if sampled { SAMPLED } else { 0 } }
    }

    /// A new trace, of random names.
    #[must_use]
    pub fn random() -> Self {
        let trace = u128::from(random()) << 64 | u128::from(random());
        let trace = NonZeroU128::new(trace).unwrap_or(NonZeroU128::MIN);
        Self::new(TraceId(trace), NonZeroU64::new(random()).unwrap_or(NonZeroU64::MIN), true)
    }

    /// What the current task [runs in](TraceContext::scope).
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|context| *context).ok()
    }

    /// Runs `future` in this context: what is proposed in it belongs to the trace.
    pub fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, future)
    }

    /// The trace.
    #[must_use]
    pub const fn trace_id(&self) -> TraceId {
        self.trace
    }

    /// The span that has caused what runs in this context.
    #[must_use]
    pub const fn span_id(&self) -> NonZeroU64 {
        self.span
    }

    /// Does somebody take the trace down?
    #[must_use]
    pub const fn sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// As bytes: the trace and the span, big-endian, and the flags.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&self.trace.0.get().to_be_bytes());
        bytes[16..24].copy_from_slice(&self.span.get().to_be_bytes());
        bytes[24] = self.flags;
        bytes
    }

    /// From such bytes; nothing if the trace or the span is all zeros.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let (trace, rest) = bytes.split_first_chunk::<16>()?;
        let (span, rest) = rest.split_first_chunk::<8>()?;
        Some(Self {
            trace: TraceId(NonZeroU128::new(u128::from_be_bytes(*trace))?),
            span: NonZeroU64::new(u64::from_be_bytes(*span))?,
            flags: *rest.first()?,
        })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

impl FromStr for TraceContext {
    type Err = TraceparentError;

    /// Versions to come are read as far as they begin like version 00, which the standard asks for.
    fn from_str(text: &str) -> Result<Self, TraceparentError> {
        let (known, more) = text.split_at_checked(TEXT).ok_or(TraceparentError::Shape)?;
        let mut parts = known.split('-');
        let mut part = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits).ok_or(TraceparentError::Shape)?;
            let lower = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            let number = u128::from_str_radix(part, 16).ok().filter(|_| lower);
            number.ok_or(TraceparentError::Shape)
        };
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        if version == 0xff {
            return Err(TraceparentError::Version);
        }
        if !(more.is_empty() || version > 0 && more.starts_with('-')) {
            return Err(TraceparentError::Shape);
        }
        let span = u64::try_from(span).ok().and_then(NonZeroU64::new);
        let trace = NonZeroU128::new(trace).ok_or(TraceparentError::Zero)?;
        let span = span.ok_or(TraceparentError::Zero)?;
        // Two digits.
        let flags = u8::try_from(flags).unwrap_or(0);
        Ok(Self { trace: TraceId(trace), span, flags })
    }
}

/// Names need to be unlike any others, not to be secret: a hash under a random key is good enough.
fn random() -> u64 {
    static KEY: OnceLock<RandomState> = OnceLock::new();
    thread_local! {
        static COUNT: Cell<u64> = const { Cell::new(0) };
    }
    let count = COUNT.with(|count| count.replace(count.get().wrapping_add(1)));
    KEY.get_or_init(RandomState::new).hash_one((std::thread::current().id(), count))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_header_is_read_and_written() {
        let context: TraceContext = HEADER.parse().unwrap();
        assert_eq!(context.span_id().get(), 0x00f0_67aa_0ba9_02b7);
        assert!(context.sampled());
        assert_eq!(context.to_string(), HEADER);
        assert_eq!(TraceContext::from_bytes(&context.to_bytes()), Some(context));
        let other: TraceContext = HEADER.replace("-01", "-00").parse().unwrap();
        assert!(!other.sampled());
        // Flags of which this version knows nothing are handed on.
        let flags = HEADER.replace("-01", "-a3");
        assert_eq!(flags.parse::<TraceContext>().unwrap().to_string(), flags);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = HEADER.replacen("00", "01", 1);
        assert_eq!(later.parse::<TraceContext>().unwrap().to_string(), HEADER);
        assert_eq!(format!("{later}-more").parse::<TraceContext>().unwrap().to_string(), HEADER);
        assert_eq!(format!("{later}more").parse::<TraceContext>(), Err(TraceparentError::Shape));
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for len in 0..HEADER.len() {
            assert_eq!(HEADER[..len].parse::<TraceContext>(), Err(TraceparentError::Shape), "{len}");
        }
        for (text, error) in [
            (format!("{HEADER}-"), TraceparentError::Shape),
            (HEADER.to_uppercase(), TraceparentError::Shape),
            (HEADER.replace('-', "_"), TraceparentError::Shape),
            (HEADER.replace("4bf9", "+bf9"), TraceparentError::Shape),
            (HEADER.replace("4bf9", "4b-9"), TraceparentError::Shape),
            (HEADER.replace("4bf9", "é9"), TraceparentError::Shape),
            (HEADER.replacen("00", "ff", 1), TraceparentError::Version),
            (HEADER.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)), TraceparentError::Zero),
            (HEADER.replace("00f067aa0ba902b7", &"0".repeat(16)), TraceparentError::Zero),
        ] {
            assert_eq!(text.parse::<TraceContext>(), Err(error), "{text}");
        }
        assert_eq!(TraceContext::from_bytes(&[0; 25]), None);
    }

    #[test]
    fn new_traces_have_names_of_their_own() {
        let make = || (0..100).map(|_| TraceContext::random()).collect::<Vec<_>>();
        let others = std::thread::spawn(make).join().unwrap();
        let all: BTreeSet<_> = make().into_iter().chain(others).map(|context| context.trace_id()).collect();
        assert_eq!(all.len(), 200);
    }

    #[tokio::test]
    async fn a_task_runs_in_the_context_that_it_was_given() {
        assert_eq!(TraceContext::current(), None);
        let context = TraceContext::random();
        assert_eq!(context.scope(async { TraceContext::current() }).await, Some(context));
        assert_eq!(TraceContext::current(), None);
    }
}

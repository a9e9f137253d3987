//! Errors as etcd's clients know them: they look at the code and at the very words.

use quorate_runtime_tokio::{ProposeError, ReadError};
use tonic::{Code, Status};
use tracing::{error, warn};

use crate::machine::KvError;

/// Nobody leads, or nobody that can be reached.
pub(super) const NO_LEADER: &str = "etcdserver: no leader";
const TIMED_OUT: &str = "etcdserver: request timed out";
const TOO_MANY: &str = "etcdserver: too many requests";
const STOPPED: &str = "etcdserver: server stopped";
const UNHEALTHY: &str = "etcdserver: unhealthy cluster";

/// A request that the store refuses.
pub(super) fn of_request(error: &KvError) -> Status {
    let code = match error {
        KvError::EmptyKey
        | KvError::KeyNotFound
        | KvError::ValueProvided
        | KvError::LeaseProvided
        | KvError::InvalidSort
        | KvError::TooManyOps
        | KvError::DuplicateKey
        | KvError::TooLarge => Code::InvalidArgument,
        KvError::LeaseNotFound => Code::NotFound,
        KvError::Compacted | KvError::FutureRevision => Code::OutOfRange,
        KvError::BadCommand(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}

/// One that nothing is done about, for so many are under way.
pub(super) fn too_many() -> Status {
    Status::resource_exhausted(TOO_MANY)
}

/// A change without an answer.
pub(super) fn of_proposal(error: &ProposeError) -> Status {
    match error {
        ProposeError::NoLeader { .. } => Status::unavailable(NO_LEADER),
        ProposeError::Overloaded { .. } => too_many(),
        ProposeError::TooBig { .. } => of_request(&KvError::TooLarge),
        ProposeError::Refused { why } => {
            warn!(why, "a proposal was refused");
            Status::unavailable(UNHEALTHY)
        }
        ProposeError::Unknown { .. } => Status::unavailable(TIMED_OUT),
        // It was applied: a client must not take it for undone.
        ProposeError::Reply { why } => {
            error!(why, "a reply can't be read");
            Status::unknown(format!("quorate: {error}"))
        }
        ProposeError::Stopped(_) => Status::unavailable(STOPPED),
    }
}

/// A read without an answer.
pub(super) fn of_read(error: &ReadError) -> Status {
    match error {
        ReadError::NoLeader { .. } => Status::unavailable(NO_LEADER),
        ReadError::Behind { .. } => Status::unavailable(TIMED_OUT),
        ReadError::Overloaded { .. } => too_many(),
        ReadError::Refused { why } => {
            warn!(why, "a read was refused");
            Status::unavailable(UNHEALTHY)
        }
        ReadError::Panicked { message } => {
            error!(message, "a read panicked");
            Status::internal(format!("quorate: {error}"))
        }
        ReadError::Stopped(_) => Status::unavailable(STOPPED),
    }
}

/// An answer of a kind that doesn't belong to the request.
pub(super) fn mismatch() -> Status {
    Status::internal("quorate: the answer is of another kind than the request, which is a bug")
}

/// Something that isn't served.
pub(super) fn not_served(what: &str) -> Status {
    Status::unimplemented(format!("quorate: {what} is not served"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_runtime_tokio::{ProposeError, ReadError, StopReason, Stopped};
    use tonic::Code;

    use super::{of_proposal, of_read, of_request};
    use crate::machine::KvError;

    #[test]
    fn codes_are_etcds() {
        for (error, code) in [
            (KvError::EmptyKey, Code::InvalidArgument),
            (KvError::KeyNotFound, Code::InvalidArgument),
            (KvError::ValueProvided, Code::InvalidArgument),
            (KvError::LeaseProvided, Code::InvalidArgument),
            (KvError::InvalidSort, Code::InvalidArgument),
            (KvError::TooManyOps, Code::InvalidArgument),
            (KvError::DuplicateKey, Code::InvalidArgument),
            (KvError::TooLarge, Code::InvalidArgument),
            (KvError::LeaseNotFound, Code::NotFound),
            (KvError::Compacted, Code::OutOfRange),
            (KvError::FutureRevision, Code::OutOfRange),
        ] {
            let status = of_request(&error);
            assert_eq!((status.code(), status.message()), (code, error.to_string().as_str()));
        }
    }

    #[test]
    fn what_a_node_can_not_do_has_etcds_words() {
        let (why, what, last) = (String::new(), String::new(), String::new());
        let (waited, stopped) = (Duration::ZERO, Stopped { why: StopReason::Shutdown });
        let unavailable = Code::Unavailable;
        for (error, code, words) in [
            (ProposeError::NoLeader { waited, last: last.clone() }, unavailable, "etcdserver: no leader"),
            (ProposeError::Unknown { why: why.clone() }, unavailable, "etcdserver: request timed out"),
            (
                ProposeError::Overloaded { what: what.clone() },
                Code::ResourceExhausted,
                "etcdserver: too many requests",
            ),
            (
                ProposeError::TooBig { bytes: 2, bound: 1 },
                Code::InvalidArgument,
                "etcdserver: request is too large",
            ),
            (ProposeError::Refused { why: why.clone() }, unavailable, "etcdserver: unhealthy cluster"),
            (ProposeError::Stopped(stopped.clone()), unavailable, "etcdserver: server stopped"),
        ] {
            let status = of_proposal(&error);
            assert_eq!((status.code(), status.message()), (code, words));
        }
        assert_eq!(of_proposal(&ProposeError::Reply { why: why.clone() }).code(), Code::Unknown);
        for (error, code, words) in [
            (ReadError::NoLeader { waited, last }, unavailable, "etcdserver: no leader"),
            (ReadError::Behind { waited }, unavailable, "etcdserver: request timed out"),
            (ReadError::Overloaded { what }, Code::ResourceExhausted, "etcdserver: too many requests"),
            (ReadError::Refused { why: why.clone() }, unavailable, "etcdserver: unhealthy cluster"),
            (ReadError::Stopped(stopped), unavailable, "etcdserver: server stopped"),
        ] {
            let status = of_read(&error);
            assert_eq!((status.code(), status.message()), (code, words));
        }
        assert_eq!(of_read(&ReadError::Panicked { message: why }).code(), Code::Internal);
    }
}

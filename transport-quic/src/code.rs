//! With which codes connections and streams are closed.

use quinn::VarInt;

/// Why a connection or stream is closed, as its peer is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Code {
    /// The node stops.
    Shutdown,
    /// The two nodes have another connection already; that one is used.
    Duplicate,
    /// The certificate is in order, but it is for another cluster, or not for the node that was meant.
    Identity,
    /// A stream with an unknown beginning.
    Hello,
    /// A stream of an unknown version.
    Version,
    /// A frame of a forbidden length, or one that ends early.
    Frame,
    /// A message that can't be read.
    Message,
    /// A forwarded request was not looked at: there are too many.
    Busy,
}

impl Code {
    const ALL: [Self; 8] = [
        Self::Shutdown,
        Self::Duplicate,
        Self::Identity,
        Self::Hello,
        Self::Version,
        Self::Frame,
        Self::Message,
        Self::Busy,
    ];

    pub(crate) const fn number(self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Shutdown => 0,
            Self::Duplicate => 1,
            Self::Identity => 2,
            Self::Hello => 3,
            Self::Version => 4,
            Self::Frame => 5,
            Self::Message => 6,
            Self::Busy => 7,
        })
    }

    /// What a peer meant; `None` for a code that this version does not know.
    pub(crate) fn from_number(number: VarInt) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_number() {
        for code in Code::ALL {
            assert_eq!(Code::from_number(code.number()), Some(code));
        }
        assert_eq!(Code::from_number(VarInt::from_u32(99)), None);
    }
}

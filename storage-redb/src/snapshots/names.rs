//! What the files of snapshots are called.

use quorate_core::{GroupId, Index, LogId, Term};

/// How far a snapshot's file is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Stage {
    Taking,
    Receiving,
    Published,
}

/// The name of a snapshot's file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Name {
    pub(crate) group: GroupId,
    pub(crate) last: LogId,
    pub(crate) stage: Stage,
}

impl Name {
    pub(crate) fn text(self) -> String {
        let Self { group, last, stage } = self;
        let stage = match stage {
            Stage::Taking => "taking",
            Stage::Receiving => "receiving",
            Stage::Published => "snapshot",
        };
        format!("{:x}-{:016x}-{:x}.{stage}", group.0, last.index.0, last.term.0)
    }

    /// Reads a name; `None` if it is none of ours.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (front, stage) = text.split_once('.')?;
        let stage = match stage {
            "taking" => Stage::Taking,
            "receiving" => Stage::Receiving,
            "snapshot" => Stage::Published,
            _ => return None,
        };
        let mut numbers = front.split('-').map(|number| u64::from_str_radix(number, 16).ok());
        let (group, index, term) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let name = Self { group: GroupId(group), last: LogId::new(Term(term), Index(index)), stage };
        // Written in another way it would be another file.
        (name.text() == text).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_and_others_are_left_alone() {
        for stage in [Stage::Taking, Stage::Receiving, Stage::Published] {
            let last = LogId::new(Term(0x1F), Index(1 << 40));
            let name = Name { group: GroupId(18), last, stage };
            assert_eq!(Name::parse(&name.text()), Some(name));
        }
        let published = "12-0000010000000000-1f.snapshot";
        assert_eq!(Name::parse(published).map(Name::text).as_deref(), Some(published));
        for other in ["quorate.store", "12-10-1f.snapshot", "12-0000010000000000.snapshot", "a.snapshot", ""]
        {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }
}

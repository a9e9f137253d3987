//! What a store brings back is looked through before it is believed.

use crate::{Index, LogId, NodeId, Recovered, Term};

#[cfg(feature = "replay")]
impl crate::Raft {
    /// What its store would bring back if all that was ever issued were durable, and its state machine had applied all that
    /// was handed out. For a replay that begins in the middle.
    #[must_use]
    pub fn as_recovered(&self) -> Recovered {
        let base = self.log.base();
        let memberships = self.memberships.above(base.index);
        Recovered {
            incarnation: self.incarnation,
            hard_state: self.hard_state,
            base,
            base_membership: self.memberships.at(base.index).clone(),
            snapshot: self.snapshot.as_deref().cloned(),
            terms: self.log.terms().to_vec(),
            last: self.log.last().index,
            memberships: memberships.map(|(index, membership)| (index, membership.clone())).collect(),
            applied: self.applying.handed(),
        }
    }

    /// The newest write that it has issued, and the newest of which it knows that it is durable.
    #[must_use]
    pub const fn writes(&self) -> (crate::WriteSeq, crate::WriteSeq) {
        self.outbox.writes()
    }
}

/// Could a correct node have left this behind?
pub(crate) fn validate(recovered: &Recovered) -> Result<(), &'static str> {
    let Recovered { incarnation, hard_state, base, snapshot, terms, last, memberships, applied, .. } =
        recovered;
    let rule = |ok: bool, why| if ok { Ok(()) } else { Err(why) };
    rule(incarnation.0 > 0, "the incarnation is 0: a store counts from 1")?;
    rule(hard_state.term < Term::LIMIT, "the term is out of range")?;
    rule(*last >= base.index && *last < Index::LIMIT, "the log ends before its base, or out of range")?;
    rule(*applied <= *last, "more was applied than is in the log")?;
    rule(base.term <= hard_state.term, "the snapshot is of a later term than the hard state")?;
    rule(
        (base.index == Index(0)) == (base.term == Term(0)),
        "the base has an index without a term, or the reverse",
    )?;
    rule(hard_state.vote != Some(NodeId(0)), "the vote is for node 0")?;
    let above = *last > base.index;
    rule(above != terms.is_empty(), "entries without terms, or terms without entries")?;
    let mut before = *base;
    for (n, start) in terms.iter().enumerate() {
        rule(n > 0 || start.first == base.index.next(), "the terms don't begin right above the base")?;
        let follows =
            start.first > before.index && (start.term > before.term || n == 0 && start.term >= base.term);
        rule(follows && start.first <= *last && start.term.0 > 0, "the terms are out of order")?;
        rule(start.term <= hard_state.term, "an entry is of a later term than the hard state")?;
        before = LogId::new(start.term, start.first);
    }
    match snapshot.as_ref().map(|snapshot| snapshot.last) {
        Some(id) => {
            rule(id.index >= base.index && id.index <= *last, "the snapshot lies outside of the log")?;
            let newest = terms.iter().rev().find(|start| start.first <= id.index);
            let term = newest.map_or(base.term, |start| start.term);
            rule(id.term == term && id.index > Index(0), "the snapshot is of another term than its entry")?;
        }
        None => rule(base.index == Index(0), "the log was compacted, but there is no snapshot")?,
    }
    let mut index = base.index;
    for (at, _) in memberships {
        rule(*at > index && *at <= *last, "the memberships are out of order, or not in the log")?;
        index = *at;
    }
    Ok(())
}

//! Groups come, start and go.

use quorate_core::{
    GroupId, HardState, Incarnation, Index, LogId, Membership, Recovered, Snapshot, WriteSeq,
};

use crate::{
    Error, RedbStore,
    record::Base,
    recovery::{self, Scanned},
    store::Group,
};

impl RedbStore {
    /// New groups, all in one transaction.
    pub(crate) fn add_groups(&mut self, groups: &[(GroupId, Membership)]) -> Result<(), Error> {
        let fresh = Group {
            incarnation: Incarnation(0),
            hard_state: HardState::default(),
            base: LogId::ZERO,
            last: LogId::ZERO,
            next: None,
        };
        for (group, _) in groups {
            self.check_new(*group)?;
        }
        let mut named: Vec<GroupId> = groups.iter().map(|(group, _)| *group).collect();
        named.sort_unstable();
        if let Some([twice, _]) = named.windows(2).find(|pair| pair.first() == pair.last()) {
            return Err(Error::GroupExists(*twice));
        }
        self.latched(|store| {
            store.transact(|staged, _| {
                for (group, membership) in groups {
                    staged.add(*group, fresh);
                    staged.bases.insert(*group, Base { id: LogId::ZERO, membership: membership.clone() });
                }
                Ok(())
            })
        })?;
        groups.iter().for_each(|(group, _)| self.shelf.add_group(*group));
        Ok(())
    }

    fn check_new(&self, group: GroupId) -> Result<(), Error> {
        if self.removed.contains(&group) {
            return Err(Error::GroupRemoved(group));
        }
        if self.groups.contains_key(&group) {
            return Err(Error::GroupExists(group));
        }
        Ok(())
    }

    /// Log, state and base go in one transaction, which leaves word that the group was here; then the files.
    pub(crate) fn remove_group(&mut self, group: GroupId) -> Result<(), Error> {
        self.latched(|store| store.transact(|staged, log| staged.remove(log, group)))?;
        self.shelf.remove_group(group);
        Ok(())
    }

    /// Reads the logs, and issues new incarnations in one transaction.
    pub(crate) fn recover_groups(&mut self, groups: &[GroupId]) -> Result<Vec<Recovered>, Error> {
        let mut found = groups.iter().map(|group| self.look(*group)).collect::<Result<Vec<_>, _>>()?;
        if found.is_empty() {
            return Ok(found);
        }
        self.latched(|store| {
            store.transact(|staged, _| {
                for (group, recovered) in groups.iter().zip(&mut found) {
                    let changed = staged.group(*group)?;
                    let next = Incarnation(changed.group.incarnation.0.saturating_add(1));
                    (changed.group.incarnation, recovered.incarnation) = (next, next);
                    changed.group.next = Some(WriteSeq(1));
                    changed.state_changed = true;
                }
                Ok(())
            })
        })?;
        Ok(found)
    }

    /// What is there of a group, in the life that it has.
    fn look(&self, group: GroupId) -> Result<Recovered, Error> {
        let (Some(found), Some(base)) = (self.groups.get(&group), self.bases.get(&group)) else {
            let removed = self.removed.contains(&group);
            return Err(if removed { Error::GroupRemoved(group) } else { Error::UnknownGroup(group) });
        };
        let log = recovery::scan(self.db.held().read().db()?, &self.file, group, base.id, found.last)?;
        let snapshot = self.newest_snapshot(group, base, found.last, &log)?;
        Ok(Recovered {
            incarnation: found.incarnation,
            hard_state: found.hard_state,
            base: base.id,
            base_membership: base.membership.clone(),
            applied: snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.last.index),
            snapshot,
            terms: log.terms,
            last: found.last.index,
            memberships: log.memberships,
        })
    }

    /// The newest published snapshot that is of this log. One that was received and never installed may be beyond its end, or of an entry
    /// that another leader's has replaced: it waits, or goes when a newer one comes.
    fn newest_snapshot(
        &self,
        group: GroupId,
        base: &Base,
        last: LogId,
        log: &Scanned,
    ) -> Result<Option<Snapshot>, Error> {
        let mut published = self.shelf.newest_first(group).into_iter();
        let Some((id, found)) = published.find(|(id, _)| log.holds(base.id, last, *id)) else {
            return if base.id == LogId::ZERO {
                Ok(None)
            } else {
                Err(recovery::no_snapshot(&self.file, group, base.id))
            };
        };
        // Damage to the newest one is not passed over: the one before may be too old for the log, and the disk is bad.
        found.info.map(|info| Some(info.snapshot)).map_err(|_| self.shelf.damage(group, id))
    }
}

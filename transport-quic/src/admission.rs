//! Which attempts to connect are looked at: a bounded number at a time, and nobody's can crowd out all others.
//!
//! Before its handshake is over, nothing is known of an attempt but the address that it says it comes from. So the bounds are
//! per address, and some room is kept for the addresses at which peers are known to listen, from which they dial as well.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How many attempts may be under way from one address that has been proved.
const PER_ADDRESS: usize = 4;

/// Counts the attempts under way.
#[derive(Debug)]
pub(crate) struct Admission {
    limit: usize,
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    total: usize,
    strangers: usize,
    by_address: BTreeMap<SocketAddr, usize>,
}

/// What to do with an attempt.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Go on, and drop this when it is over.
    Admitted(Admitted),
    /// The address has to be proved first. An answer to a made-up one goes to somebody else.
    Prove,
    /// There are too many.
    Full,
}

/// One attempt under way.
#[derive(Debug)]
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    from: SocketAddr,
    known: bool,
}

impl Admission {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, pending: Mutex::default() })
    }

    /// `known`: a peer listens there. `proved`: it has answered from there.
    pub(crate) fn admit(self: &Arc<Self>, from: SocketAddr, known: bool, proved: bool) -> Verdict {
        let mut pending = self.lock();
        let here = pending.by_address.get(&from).copied().unwrap_or(0);
        // Whoever makes up addresses can use up one attempt of each, and half of all.
        if !proved && (here > 0 || pending.total >= self.limit / 2) {
            return Verdict::Prove;
        }
        let crowded = !known && pending.strangers >= self.limit - self.limit / 4;
        if crowded || here >= PER_ADDRESS || pending.total >= self.limit {
            return Verdict::Full;
        }
        pending.total += 1;
        pending.strangers += usize::from(!known);
        *pending.by_address.entry(from).or_default() += 1;
        Verdict::Admitted(Admitted { admission: self.clone(), from, known })
    }

    /// How many attempts there are now.
    pub(crate) fn under_way(&self) -> usize {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut pending = self.admission.lock();
        pending.total -= 1;
        pending.strangers -= usize::from(!self.known);
        if let Some(here) = pending.by_address.get_mut(&self.from) {
            *here -= 1;
            if *here == 0 {
                pending.by_address.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    fn admitted(verdict: Verdict) -> Admitted {
        match verdict {
            Verdict::Admitted(admitted) => admitted,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn strangers_leave_room_for_those_who_are_known() {
        let admission = Admission::new(8);
        let strangers: Vec<_> =
            (1..=6).map(|port| admitted(admission.admit(at(port), false, true))).collect();
        assert!(matches!(admission.admit(at(7), false, true), Verdict::Full));
        let known =
            [admitted(admission.admit(at(100), true, true)), admitted(admission.admit(at(101), true, true))];
        assert!(matches!(admission.admit(at(102), true, true), Verdict::Full));
        drop(strangers);
        drop(known);
        let pending = admission.lock();
        assert_eq!((pending.total, pending.strangers, pending.by_address.len()), (0, 0, 0));
    }

    #[test]
    fn an_address_is_proved_before_it_is_used_twice_and_used_four_times_at_most() {
        let admission = Admission::new(100);
        let _first = admitted(admission.admit(at(1), true, false));
        assert!(matches!(admission.admit(at(1), true, false), Verdict::Prove));
        let _more: Vec<_> = (0..3).map(|_| admitted(admission.admit(at(1), true, true))).collect();
        assert!(matches!(admission.admit(at(1), true, true), Verdict::Full));
        let _other = admitted(admission.admit(at(2), false, false));
    }

    #[test]
    fn made_up_addresses_take_half_of_the_room() {
        let admission = Admission::new(8);
        let _made_up: Vec<_> =
            (1..=4).map(|port| admitted(admission.admit(at(port), false, false))).collect();
        assert!(matches!(admission.admit(at(5), false, false), Verdict::Prove));
        let _proved = admitted(admission.admit(at(5), false, true));
    }
}

use shuttle::thread;

use super::*;
use crate::races::check;

/// A runtime that does nothing: no test here has it do anything.
fn desk() -> (tokio::runtime::Runtime, Arc<Desk>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let runner = Runner::Threads(runtime.handle().clone());
    let desk = Desk::new(SnapshotLimits::default(), runner);
    (runtime, desk)
}

#[test]
fn one_of_many_has_its_turn_and_all_others_know_that_they_have_not() {
    check(|| {
        let (_runtime, desk) = desk();
        let group = GroupId(1);
        let coming = [1, 2, 2].map(|term| {
            let desk = desk.clone();
            thread::spawn(move || {
                // The first is gone again, before another comes or while one does.
                drop(desk.take_turn(group, Term(term)));
                desk.take_turn(group, Term(term))
            })
        });
        let turns: Vec<Turn> = coming.map(|thread| thread.join().unwrap()).into_iter().flatten().collect();
        // One at a time stages, whoever waits for it.
        assert!(turns.iter().all(|turn| Arc::ptr_eq(&turn.staging, &turns[0].staging)));
        let (past, mut turns): (Vec<_>, Vec<_>) =
            turns.into_iter().partition(|turn| *turn.superseded.borrow());
        assert_eq!(turns.len(), 1);
        // That those go which have lost it already makes no difference to whoever has it.
        drop(past);
        assert!(desk.take_turn(group, Term(0)).is_none());
        turns.extend(desk.take_turn(group, Term(2)));
        assert_eq!(turns.iter().map(|turn| *turn.superseded.borrow()).collect::<Vec<_>>(), [true, false]);
        let going: Vec<_> = turns.into_iter().map(|turn| thread::spawn(move || drop(turn))).collect();
        going.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(desk.slots.lock().unwrap().is_empty(), "nobody waits, and nothing is left behind");
    });
}

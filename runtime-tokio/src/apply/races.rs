use std::sync::atomic::AtomicUsize as Plain;

use shuttle::thread;

use super::*;
use crate::races::check;

const BOUND: usize = 5;

#[test]
fn tickets_never_weigh_more_than_their_bound_and_none_is_left_over() {
    check(|| {
        let waiting: Arc<AtomicUsize> = Arc::default();
        // No moment at which threads take turns, so it is true of each moment.
        let held = Arc::new(Plain::new(0));
        let taking = [1, 2, 3, 4].map(|weight| {
            let (waiting, held) = (waiting.clone(), held.clone());
            thread::spawn(move || {
                for _ in 0..2 {
                    let Some(ticket) = Ticket::take(&waiting, weight, BOUND) else { continue };
                    let all = held.fetch_add(weight, Relaxed) + weight;
                    assert!(all <= BOUND, "{all} are held");
                    thread::yield_now();
                    held.fetch_sub(weight, Relaxed);
                    drop(ticket);
                }
            })
        });
        taking.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(waiting.load(Relaxed), 0);
        assert!(Ticket::take(&waiting, BOUND, BOUND).is_some(), "there is room for all again");
    });
}

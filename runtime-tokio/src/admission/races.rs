use shuttle::thread;

use super::*;
use crate::races::check;

#[test]
fn whoever_is_taken_in_is_counted_until_he_goes() {
    check(|| {
        // They come at the same moment, and are several all the same.
        let (admission, now) = (Admission::new(Duration::from_secs(4)), Instant::now());
        let coming = [(); 3].map(|()| {
            let admission = admission.clone();
            thread::spawn(move || {
                for stays in [false, true] {
                    let admitted = admission.admit_at(now, None).ok().unwrap();
                    assert!(admission.state().waiting.contains(&admitted.ticket));
                    if stays {
                        return admitted;
                    }
                }
                unreachable!("the second stays")
            })
        });
        let staying = coming.map(|thread| thread.join().unwrap());
        assert_eq!(admission.state().waiting.len(), staying.len());
        let going = staying.map(|admitted| thread::spawn(move || drop(admitted)));
        going.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(admission.state().waiting.is_empty());
    });
}

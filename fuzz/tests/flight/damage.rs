//! Whatever a file holds, it is replayed or refused, with a reason; nothing panics.

use std::{fs, path::PathBuf, slice::from_ref};

use quorate_core::{NodeId, recording::MAGIC};
use quorate_sim::flight::{FlightError, replay};

use crate::{
    cluster::{WHOLE, busy},
    notes::{BEFORE, read, write},
};

#[tokio::test(flavor = "multi_thread")]
async fn another_format_is_refused_and_the_known_ones_are_named() {
    let cluster = busy(WHOLE).await;
    let file = cluster.segments(NodeId(1)).remove(0);
    let whole = fs::read(&file).unwrap();
    let mut other = whole.clone();
    other[MAGIC.len()] += 1;
    fs::write(&file, other).unwrap();
    let error = replay(from_ref(&file)).unwrap_err();
    assert!(matches!(&error, FlightError::UnknownVersion { found: 3, .. }), "{error:?}");
    assert!(error.to_string().contains("format 3 is not known here (known: 2)"), "{error}");

    // The same node's same segment twice, a file that isn't there, and a directory with nothing in it.
    fs::write(&file, &whole).unwrap();
    let copy = file.with_extension("copy");
    fs::copy(&file, &copy).unwrap();
    assert!(matches!(replay(&[file, copy]), Err(FlightError::Unrelated { .. })));
    assert!(matches!(replay(&[PathBuf::from("no/such")]), Err(FlightError::Io { .. })));
    let empty = tempfile::tempdir().unwrap();
    let error = replay(&[empty.path().to_owned()]).unwrap_err();
    assert!(matches!(error, FlightError::NotARecording { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_refused_and_never_a_panic() {
    let cluster = busy(WHOLE).await;
    let file = cluster.segments(NodeId(2)).remove(0);
    let whole = fs::read(&file).unwrap();
    for text in ["", "\n", "{", "{\"quorate-flight\":1,", "hello\nworld\n"] {
        fs::write(&file, text).unwrap();
        let error = replay(from_ref(&file)).unwrap_err();
        assert!(matches!(error, FlightError::NotARecording { .. }), "{text:?}: {error:?}");
    }
    // A flipped bit is found by the checksum, or by what comes out of it; in the last chunk it looks like a crash.
    let mut refused = 0;
    for n in 0..300 {
        let mut bytes = whole.clone();
        // Spread over the file, most of them where it begins.
        let at = if n % 3 == 0 { n * 7 % 1500 } else { n * 7919 * 31 % whole.len() };
        bytes[at] ^= 1 << (n % 8);
        fs::write(&file, &bytes).unwrap();
        refused += usize::from(replay(from_ref(&file)).map_or(true, |report| report.nodes[0].torn));
    }
    assert_eq!(refused, 300);
}

/// The checksum is right, and what it covers is not what was written.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_with_a_checksum_is_never_a_panic() {
    let cluster = busy(WHOLE).await;
    let file = cluster.segments(NodeId(2)).remove(0);
    let whole = read(&file);
    let mut refused = 0;
    for n in 0..300_usize {
        let mut notes = whole.clone();
        let which = if n % 3 == 0 { 0 } else { n * 7919 % whole.len() };
        let at = n * 31 % notes[which].len();
        notes[which][at] ^= 1 << (n % 8);
        write(&file, &notes);
        refused += usize::from(replay(from_ref(&file)).is_err());
    }
    assert!(refused > 150, "only {refused}");
    assert!(fs::read(&file).unwrap().len() > BEFORE);
}

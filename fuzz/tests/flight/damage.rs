//! Whatever a file holds, it is replayed or refused, with a reason; nothing panics.

use std::{fs, path::PathBuf, slice::from_ref};

use quorate_core::NodeId;
use quorate_sim::flight::{FlightError, replay};

use crate::cluster::busy;

#[tokio::test(flavor = "multi_thread")]
async fn another_format_is_refused_and_the_known_ones_are_named() {
    let cluster = busy(false).await;
    let file = cluster.file(NodeId(1));
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("{\"quorate-flight\":1,", "{\"quorate-flight\":2,", 1)).unwrap();
    let error = replay(from_ref(&file)).unwrap_err();
    assert!(matches!(&error, FlightError::UnknownVersion { line: 1, .. }), "{error:?}");
    assert!(error.to_string().contains("format 2 is not known here (known: 1)"), "{error}");

    // The same node's same life twice, and a file that isn't there.
    fs::write(&file, &text).unwrap();
    let copy = file.with_extension("copy");
    fs::copy(&file, &copy).unwrap();
    assert!(matches!(replay(&[file, copy]), Err(FlightError::Unrelated { .. })));
    assert!(matches!(replay(&[PathBuf::from("no/such")]), Err(FlightError::Io { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_refused_and_never_a_panic() {
    let cluster = busy(false).await;
    let file = cluster.file(NodeId(2));
    for text in ["", "\n", "{", "[1,2]", "{\"quorate-flight\":1", "hello\nworld\n"] {
        fs::write(&file, text).unwrap();
        let error = replay(from_ref(&file)).unwrap_err();
        let typed = matches!(error, FlightError::NotARecording { .. } | FlightError::Malformed { .. });
        assert!(typed, "{text:?}: {error:?}");
    }
    let cluster = busy(false).await;
    let file = cluster.file(NodeId(2));
    let whole = fs::read(&file).unwrap();
    let mut refused = 0;
    for n in 0..300 {
        let mut bytes = whole.clone();
        // Spread over the file, most of them where it begins.
        let at = if n % 3 == 0 { n * 7 % 1500 } else { n * 7919 * 31 % whole.len() };
        bytes[at] = b"0:,]}x\"9\n"[n % 9];
        fs::write(&file, &bytes).unwrap();
        refused += usize::from(replay(from_ref(&file)).is_err());
    }
    assert!(refused > 200, "only {refused}");
}

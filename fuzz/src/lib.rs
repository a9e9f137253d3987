//! What the fuzz targets do with their bytes. `cargo fuzz run wire` or `core` (a nightly toolchain, from the root of the
//! repository); `cargo test -p quorate-fuzz` replays the corpora on any toolchain.

use std::collections::BTreeSet;

use quorate_core::{Action, wire};

#[path = "../../core/tests/common/chaos.rs"]
pub mod chaos;

/// Bytes as a frame: read or refused; and what was read is written and read again the same.
///
/// # Panics
/// If it is not.
pub fn wire(bytes: &[u8]) {
    let Ok(message) = wire::decode(bytes) else { return };
    assert_eq!(message.validate(), Ok(()));
    let frame = wire::encode(&message).to_bytes();
    assert_eq!(wire::decode(&frame), Ok(message));
}

/// Bytes as choices: whatever happens to one core, nothing is wrong with it.
///
/// # Panics
/// If something is.
pub fn core(bytes: &[u8]) {
    let _met = chaos::run(bytes, &mut ());
}

/// What a run through these choices meets: inputs and how they were taken, actions, and what is in them.
#[must_use]
pub fn features(bytes: &[u8]) -> BTreeSet<String> {
    #[derive(Default)]
    struct Seen(BTreeSet<String>);
    impl chaos::Observer for Seen {
        fn action(&mut self, action: &Action) {
            self.0.extend(kind(action));
        }
    }
    let mut seen = Seen::default();
    let met = chaos::run(bytes, &mut seen);
    seen.0.extend(met.into_keys());
    seen.0
}

/// What is special about an action, if it comes in kinds.
fn kind(action: &Action) -> Option<String> {
    let (what, text) = match action {
        Action::Write(write) => ("rebase", format!("{:?}", write.rebase.as_ref()?)),
        Action::Resolve { outcome, .. } => ("outcome", format!("{outcome:?}")),
        Action::Event(event) => ("event", format!("{event:?}")),
        Action::Send { message, .. } => ("send", format!("{:?}", message.body)),
        Action::Apply(_) | Action::Restore(_) | Action::SendSnapshot(_) | Action::Load(_) => return None,
    };
    text.split([' ', '(', '{']).next().map(|word| format!("{what} {word}"))
}

/// A fuzz target: its name, which is also its corpus's, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[("wire", wire), ("core", core)];

//! What the fuzz targets do with their bytes. `cargo fuzz run wire` or `core` (a nightly toolchain, from the root of the
//! repository); `cargo test -p quorate-fuzz` replays the corpora on any toolchain.

use quorate_core::wire;

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

/// A fuzz target: its name, which is also its corpus's, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[("wire", wire), ("core", core)];

//! See `quorate_fuzz::core`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorate_fuzz::core(bytes));

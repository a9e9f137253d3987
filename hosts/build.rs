//! Compiles the library that makes a process's disk slow, which is loaded into it with `LD_PRELOAD`: it needs an exported
//! C function, and so is not part of the crate, which has no `unsafe`.

use std::{env, path::PathBuf, process::Command};

fn main() {
    const SOURCE: &str = "shim/slow_sync.rs";
    println!("cargo::rerun-if-changed={SOURCE}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("slow_sync.so");
    println!("cargo::rustc-env=SLOW_SYNC_LIBRARY={}", out.display());
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        std::fs::write(out, []).expect("the output directory can be written");
        return;
    }
    let mut rustc = Command::new(env::var_os("RUSTC").expect("cargo sets it"));
    rustc.args(["--edition", "2024", "--crate-type", "cdylib", "-C", "opt-level=2", "-C", "panic=abort"]);
    rustc.arg("--target").arg(env::var_os("TARGET").expect("cargo sets it"));
    let status = rustc.arg("-o").arg(out).arg(SOURCE).status();
    assert!(status.is_ok_and(|status| status.success()), "{SOURCE} does not compile");
}

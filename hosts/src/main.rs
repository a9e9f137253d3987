//! `quorate-hosts`: see the library.

#[cfg(target_os = "linux")]
mod cli;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    cli::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("quorate-hosts: network namespaces are a thing of Linux");
    std::process::ExitCode::FAILURE
}

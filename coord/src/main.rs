//! The program `quorate`: a node, a cluster for development, and a client.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}

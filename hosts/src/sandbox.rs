//! A part of the machine of our own: network, mounts and processes in namespaces that nobody else sees.
//!
//! The program starts itself again inside, through `unshare` of util-linux. Whatever it makes there (hosts, interfaces,
//! processes) is gone when it ends, however it ends: the kernel kills every process of a process namespace with its first.
//! Root is not needed where users may have namespaces.

use std::{
    env,
    fs::File,
    io::Read as _,
    os::unix::process::CommandExt as _,
    process::{Command, Output, Stdio, exit},
    thread,
};

use anyhow::{Context as _, Result, bail};

/// Set for the program that runs inside.
const INSIDE: &str = "QUORATE_HOSTS_INSIDE";

/// What `unshare` is told: as root, and as anybody.
const WAYS: [&[&str]; 2] = [
    &["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"],
    &["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"],
];

/// All that is needed inside, tried in one go.
const PROBE: &str = "mount -t tmpfs none /run && mkdir -p /run/netns && ip link set lo up && ip netns add probe && \
                     nsenter --net=/run/netns/probe ip tuntap add dev probe mode tun";

/// How namespaces are got here.
#[derive(Clone, Copy, Debug)]
pub struct Sandbox {
    flags: &'static [&'static str],
}

impl Sandbox {
    /// Finds out whether namespaces, and virtual interfaces in them, are to be had.
    ///
    /// # Errors
    /// If they are not: says why, in one line, for people.
    pub fn find() -> Result<Self, String> {
        if !cfg!(target_os = "linux") {
            return Err("network namespaces are a thing of Linux".to_owned());
        }
        let mut why = String::new();
        for flags in WAYS {
            let tried =
                Command::new("unshare").args(flags).args(["sh", "-c", PROBE]).stdin(Stdio::null()).output();
            match tried {
                Ok(Output { status, .. }) if status.success() => return Ok(Self { flags }),
                Ok(Output { stderr, .. }) => {
                    let said = String::from_utf8_lossy(&stderr).trim().replace('\n', "; ");
                    why = format!("no network namespaces with virtual interfaces here: {said}");
                }
                Err(error) => return Err(format!("no `unshare` here (util-linux): {error}")),
            }
        }
        Err(why)
    }

    /// The program again, inside, with these arguments. It ends when its stdin does.
    #[must_use]
    pub fn command(self, program: &std::path::Path) -> Command {
        let mut command = Command::new("unshare");
        command.args(self.flags).arg(program).env(INSIDE, "1").stdin(Stdio::piped());
        command
    }
}

/// Why there is no sandbox.
#[derive(Debug)]
pub enum Refused {
    /// This machine gives none: why, in one line.
    Unavailable(String),
    /// There ought to be one.
    Failed(anyhow::Error),
}

/// Returns inside. Outside, it starts this program again inside, and becomes that.
///
/// # Errors
/// If there are no namespaces to be had, or what is needed inside can't be set up.
pub fn enter() -> Result<(), Refused> {
    if env::var_os(INSIDE).is_some() {
        return settle().map_err(Refused::Failed);
    }
    let sandbox = Sandbox::find().map_err(Refused::Unavailable)?;
    let program = env::current_exe().map_err(|error| Refused::Failed(error.into()))?;
    let mut command = sandbox.command(&program);
    // A terminal's stdin doesn't end: who has started it from one ends it with Ctrl-C.
    let error = command.args(env::args_os().skip(1)).stdin(Stdio::inherit()).env(INSIDE, "terminal").exec();
    Err(Refused::Failed(anyhow::Error::from(error).context("can't run unshare")))
}

/// Sets up what every scenario needs.
fn settle() -> Result<()> {
    if env::var(INSIDE).is_ok_and(|how| how == "1") {
        // The first process of its namespace: with it, all others end.
        thread::spawn(|| {
            let _ended = std::io::stdin().read_to_end(&mut Vec::new());
            exit(2);
        });
    }
    run("mount", &["-t", "tmpfs", "none", "/run"])?;
    std::fs::create_dir_all("/run/netns").context("can't make /run/netns")?;
    run("ip", &["link", "set", "lo", "up"])
}

/// A network namespace, by this name.
pub(crate) fn namespace(name: &str) -> Result<()> {
    run("ip", &["netns", "add", name])?;
    inside(name, "ip", &["link", "set", "lo", "up"])
}

/// The file that stands for it.
pub(crate) fn namespace_file(name: &str) -> Result<File> {
    File::open(format!("/run/netns/{name}")).with_context(|| format!("the network namespace {name}"))
}

/// A program to be run in a namespace of the network: in its process, not in a child of it.
pub(crate) fn command_in(name: &str, program: &std::ffi::OsStr) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{name}")).arg("--").arg(program);
    command
}

/// Runs a program in a namespace, to its end.
pub(crate) fn inside(name: &str, program: &str, args: &[&str]) -> Result<()> {
    finish(command_in(name, program.as_ref()).args(args))
}

/// Runs a program to its end.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<()> {
    finish(Command::new(program).args(args))
}

fn finish(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("can't run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

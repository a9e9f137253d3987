//! Idle groups: three processes on loopback, each a host with a store on the disk (synced), a QUIC transport with mutual TLS,
//! and a replica of every group. Once each group has a leader and has applied one command they are left alone, and then what
//! each process uses is read from its kernel's account: processor time over some seconds, resident memory at their end.

mod host;

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use quorate_core::NodeId;
use quorate_transport_quic::{ClusterId, pki::Ca};
use serde::{Deserialize, Serialize};

#[derive(Parser, Debug)]
#[command(about = "What idle groups cost, in three processes")]
struct Args {
    /// How many groups.
    #[arg(long, default_value_t = 1000)]
    groups: u64,
    /// After how many ms of idleness a group falls asleep; 0: never.
    #[arg(long, default_value_t = 2000)]
    quiesce: u64,
    /// For how long they are watched, in seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Where the stores go; a temporary folder by default.
    #[arg(long)]
    dir: Option<std::path::PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Be one of the three processes.
    #[arg(long, hide = true)]
    host: Option<String>,
}

/// What one of the processes is told.
#[derive(Serialize, Deserialize, Debug)]
struct Part {
    id: u64,
    dir: std::path::PathBuf,
    peers: Vec<(u64, SocketAddr)>,
    groups: u64,
    quiesce: u64,
}

/// What it answers.
#[derive(Serialize, Deserialize, Debug)]
struct Used {
    node: u64,
    /// Groups that it leads.
    leads: u64,
    /// Those that sleep.
    asleep: u64,
    /// Of one core, in percent.
    cpu: f64,
    rss_mib: f64,
    /// Messages taken in, per second.
    messages: f64,
    /// How long it took to open all groups, in seconds.
    opened: f64,
}

#[derive(Serialize, Debug)]
struct Report {
    groups: u64,
    quiesce_ms: u64,
    seconds: u64,
    nodes: Vec<Used>,
}

/// The whole run.
///
/// # Errors
/// If a process can't be started, or fails.
pub fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(part) = &args.host {
        return host::run(&serde_json::from_str(part)?);
    }
    let temporary = tempfile::tempdir()?;
    let dir = args.dir.as_deref().unwrap_or(temporary.path());
    let report = run(&args, dir)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!("{} groups on each of three nodes, asleep after {} ms:", report.groups, report.quiesce_ms);
    for Used { node, leads, asleep, cpu, rss_mib, messages, opened } in &report.nodes {
        println!(
            "  node {node}: leads {leads}, {asleep} asleep; {cpu:.2} % of a core, {rss_mib:.1} MiB, \
             {messages:.0} messages/s; opened in {opened:.2} s"
        );
    }
    Ok(())
}

fn run(args: &Args, dir: &Path) -> Result<Report> {
    let ca = Ca::generate(ClusterId(1))?;
    let sockets = [(); 3].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
    let mut peers = Vec::new();
    for (id, socket) in (1..).zip(&sockets) {
        let address = socket.as_ref().map_err(|error| anyhow::anyhow!("no port: {error}"))?.local_addr()?;
        peers.push((id, address));
    }
    drop(sockets);
    let mut hosts = Vec::new();
    for (id, _) in &peers {
        let dir = dir.join(format!("node-{id}"));
        std::fs::create_dir_all(&dir)?;
        ca.issue(NodeId(*id))?.save(&dir)?;
        let part = Part { id: *id, dir, peers: peers.clone(), groups: args.groups, quiesce: args.quiesce };
        hosts.push(Process::start(&part)?);
    }
    for step in ["open", "work"] {
        hosts.iter_mut().try_for_each(|host| host.tell(step))?;
        hosts.iter_mut().try_for_each(|host| host.hear().map(drop))?;
    }
    // Until all that were busy have calmed down.
    std::thread::sleep(Duration::from_millis(2 * args.quiesce) + Duration::from_secs(5));
    hosts.iter_mut().try_for_each(|host| host.tell("begin"))?;
    hosts.iter_mut().try_for_each(|host| host.hear().map(drop))?;
    std::thread::sleep(Duration::from_secs(args.seconds));
    hosts.iter_mut().try_for_each(|host| host.tell("end"))?;
    let mut nodes = Vec::new();
    for host in &mut hosts {
        nodes.push(serde_json::from_str(&host.hear()?)?);
    }
    Ok(Report { groups: args.groups, quiesce_ms: args.quiesce, seconds: args.seconds, nodes })
}

/// One of the processes. Ended with this.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(part: &Part) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--host", &serde_json::to_string(part)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().context("a pipe was asked for")?;
        let output = BufReader::new(child.stdout.take().context("a pipe was asked for")?);
        Ok(Self { child, input, output })
    }

    fn tell(&mut self, step: &str) -> Result<()> {
        writeln!(self.input, "{step}").context("a process has ended")
    }

    fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "a process has ended without an answer");
        Ok(line)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _gone = self.child.wait();
    }
}

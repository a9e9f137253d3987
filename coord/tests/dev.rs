//! `quorate dev`, as its user sees it.
#![cfg(feature = "server")]

mod common;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use common::{free_ports, quorate, signal, status, until};

const START: Duration = Duration::from_secs(30);

/// A running `quorate dev`; killed, and its nodes with it, when it is dropped.
struct Dev {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
    seen: Vec<String>,
    port: u16,
}

impl Dev {
    fn start(dir: &Path, port: u16, more: &[&str]) -> Self {
        let mut child = command(dir, more)
            .args(["--base-port", &port.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, lines) = std::sync::mpsc::channel();
        let out: ChildStdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _gone = send.send(line);
            }
        });
        Self { child, lines, seen: Vec::new(), port }
    }

    /// Waits for a line that says this; returns it.
    fn line(&mut self, says: &str) -> String {
        let deadline = Instant::now() + START;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let Ok(line) = line else { panic!("no line says {says:?}:\n{}", self.seen.join("\n")) };
            self.seen.push(line.clone());
            if line.contains(says) {
                return line;
            }
        }
    }

    /// The rows of the table: id, pid, role, URL, URL of the metrics, directory.
    fn table(&mut self, nodes: usize) -> Vec<Vec<String>> {
        let _head = self.line("ROLE");
        let row = |line: String| line.split_whitespace().map(str::to_owned).collect();
        (0..nodes).map(|_| row(self.line("http://127.0.0.1:"))).collect()
    }

    fn put(&self, key: &str, value: &str) {
        let output = self.client(&["put", key, value]);
        assert_eq!(output, "OK\n");
    }

    fn get(&self, key: &str) -> String {
        self.client(&["get", key, "--value-only"])
    }

    /// A client command, with every node as an endpoint.
    fn client(&self, args: &[&str]) -> String {
        let endpoints: Vec<String> =
            (0..3).map(|node| format!("127.0.0.1:{}", self.port + 10 * node)).collect();
        let output = quorate().args(args).args(["--endpoints", &endpoints.join(",")]).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A signal to `dev` itself, and its end.
    fn stop(mut self, name: &str) {
        signal(self.child.id(), name);
        self.line("stopped");
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

fn command(dir: &Path, more: &[&str]) -> Command {
    let mut command = quorate();
    command.args(["dev", "--data"]).arg(dir).args(more);
    command
}

/// Runs `dev` where it can't run; returns the one line in which it says why.
fn refused(dir: &Path, more: &[&str]) -> String {
    let output = command(dir, more).output().unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(1), vec![]));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("error: ") && message.trim_end().lines().count() == 1, "{message}");
    message
}

async fn gone(pid: u32) {
    let process = format!("{pid}");
    until(&format!("process {pid} is gone"), Duration::from_secs(10), async || {
        !Command::new("kill").args(["-0", &process]).stderr(Stdio::null()).status().unwrap().success()
    })
    .await;
}

#[tokio::test]
async fn a_killed_leader_is_replaced_and_comes_back_and_a_second_run_has_the_data() {
    let dir = tempfile::tempdir().unwrap();
    let (data, port) = (dir.path().join("data"), free_ports(3));
    let mut dev = Dev::start(&data, port, &[]);
    let table = dev.table(3);
    assert_eq!(table.iter().filter(|row| row[2] == "leader").count(), 1, "{table:?}");
    for (n, row) in table.iter().enumerate() {
        assert_eq!(row[0], (n + 1).to_string());
        assert_eq!(row[3], format!("http://127.0.0.1:{}", usize::from(port) + 10 * n));
        assert_eq!(row[4], format!("http://127.0.0.1:{}/metrics", usize::from(port) + 10 * n + 2));
        assert_eq!(Path::new(&row[5]), data.join(format!("node-{}", n + 1)));
    }
    dev.put("greeting", "hello");

    let leader = table.iter().find(|row| row[2] == "leader").unwrap();
    signal(leader[1].parse().unwrap(), "KILL");
    let line = dev.line("was ended by SIGKILL");
    assert!(line.contains(&format!("node {} (pid {})", leader[0], leader[1])), "{line}");
    assert!(line.contains("it is started again in 1 s"), "{line}");
    // Either may come first.
    let line = dev.line(" leads (term ");
    assert!(!line.contains(&format!("node {} leads", leader[0])), "{line}");
    assert_eq!(dev.get("greeting"), "hello\n");
    dev.put("greeting", "hello again");
    let back = format!("node {} is back", leader[0]);
    if !dev.seen.iter().any(|line| line.contains(&back)) {
        dev.line(&back);
    }
    // A second one here is refused; the first is not disturbed.
    let message = refused(&data, &[]);
    assert!(message.contains(&format!("another `quorate dev` (pid {})", dev.child.id())), "{message}");
    dev.stop("INT");

    let message = refused(&data, &["--nodes", "5"]);
    assert!(message.contains("holds a cluster of 3 nodes, not 5"), "{message}");

    let mut dev = Dev::start(&data, port, &["--nodes", "3"]);
    let pids: Vec<u32> = dev.table(3).iter().map(|row| row[1].parse().unwrap()).collect();
    assert_eq!(dev.get("greeting"), "hello again\n");
    let log = fs::read_to_string(data.join("node-1/log")).unwrap();
    assert!(log.contains("serving clients"), "{log}");
    dev.stop("TERM");
    for pid in pids {
        gone(pid).await;
    }
}

#[tokio::test]
async fn no_node_outlives_a_supervisor_that_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path(), free_ports(3), &[]);
    let pids: Vec<u32> = dev.table(3).iter().map(|row| row[1].parse().unwrap()).collect();
    signal(dev.child.id(), "KILL");
    for pid in pids {
        gone(pid).await;
    }
}

#[tokio::test]
async fn without_restarts_a_killed_node_stays_dead() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path(), free_ports(3), &["--no-restart"]);
    let table = dev.table(3);
    let follower = table.iter().find(|row| row[2] == "follower").unwrap();
    signal(follower[1].parse().unwrap(), "KILL");
    let line = dev.line("was ended by SIGKILL");
    assert!(line.ends_with("it stays down"), "{line}");
    dev.put("still", "here");
    let port = dev.port + 10 * (follower[0].parse::<u16>().unwrap() - 1);
    assert!(status(port).await.is_none());
    dev.stop("INT");
}

#[test]
fn a_node_that_does_not_stop_is_killed_and_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path(), free_ports(1), &["--nodes", "1"]);
    let pid = dev.table(1)[0][1].clone();
    signal(pid.parse().unwrap(), "STOP");
    signal(dev.child.id(), "INT");
    dev.line("stopping the nodes");
    // Once more, so as not to wait for it.
    signal(dev.child.id(), "INT");
    dev.line(&format!("node 1 (pid {pid}) was ended by SIGKILL"));
    dev.line("stopped; ");
    assert_eq!(dev.child.wait().unwrap().code(), Some(0));
}

#[test]
fn one_node_is_a_cluster_too() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_ports(1);
    let mut dev = Dev::start(dir.path(), port, &["--nodes", "1", "--verbose"]);
    let table = dev.table(1);
    assert_eq!(table[0][2], "leader");
    assert!(dev.seen.iter().any(|line| line.contains("node 1 | ")), "{:?}", dev.seen);
    let endpoint = format!("127.0.0.1:{port}");
    let output = quorate().args(["put", "a", "b", "--endpoints", &endpoint]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    dev.stop("INT");
}

#[test]
fn a_port_in_use_a_file_and_a_strange_directory_are_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let message = refused(&dir.path().join("new"), &["--nodes", "1", "--base-port", &port]);
    assert!(message.contains(&format!("TCP port {port} (node 1, clients)")), "{message}");

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(refused(&file, &[]).contains("choose another directory with --data"));
    assert!(refused(dir.path(), &[]).contains("holds something else"));
}

#[test]
fn a_store_that_is_damaged_is_refused_with_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_ports(3);
    let mut dev = Dev::start(dir.path(), port, &[]);
    dev.table(3);
    dev.put("a", "b");
    dev.stop("INT");
    // The front of the file, where it says whose it is, is whole; the database behind it is not.
    let store = dir.path().join("node-2/store/quorate.store");
    let mut bytes = fs::read(&store).unwrap();
    let middle = bytes.len() / 2;
    bytes[16_384..middle].fill(0xA5);
    fs::write(&store, bytes).unwrap();
    let message = refused(dir.path(), &["--base-port", &port.to_string()]);
    assert!(
        message.contains("node 2 did not start") && message.contains("quorate.store is damaged"),
        "{message}"
    );
    // The others were stopped too: their ports are free.
    let _free = TcpListener::bind(("127.0.0.1", port)).unwrap();
}

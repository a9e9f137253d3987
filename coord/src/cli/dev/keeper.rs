//! Keeps one node running: its process, its log, and its return when it has ended.

use std::{
    fmt, io,
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader},
    process::{Child, Command},
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use super::{layout::Plan, log::Log};
use crate::cli::supervise::Event;

/// The pause before a node is started again; doubled each time that it doesn't hold for long.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// A node that has run for so long has held.
const HELD: Duration = Duration::from_secs(10);

/// How long a node may take to stop; then it is killed.
const PATIENCE: Duration = Duration::from_secs(6);

/// A longer line of a node's log is cut in two.
const LINE: u64 = 64 << 10;

/// What all nodes are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Run.
    Run,
    /// Stop in an orderly way.
    Stop,
    /// Die.
    Kill,
}

/// What has happened to a node.
#[derive(Debug)]
pub(crate) enum News {
    /// Its process was started.
    Started {
        /// The process.
        pid: u32,
    },
    /// It has said something.
    Event(Event),
    /// It has logged a line; only if all are asked for.
    Line(String),
    /// Its process has ended.
    Ended {
        /// The process.
        pid: u32,
        /// How.
        how: Ended,
        /// When it is started again, if it is.
        again: Option<Duration>,
    },
    /// Its process can't be started, or its log can't be written.
    Failed(String),
}

/// How a process has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    status: ExitStatus,
    last_line: String,
}

/// How nodes are kept.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    /// This very program.
    pub(crate) program: PathBuf,
    /// Start again what has ended?
    pub(crate) restart: bool,
    /// Record what each node's core is told? With these flags then.
    pub(crate) record: Option<Vec<String>>,
    /// Tell every line that is logged?
    pub(crate) verbose: bool,
    /// Where news goes.
    pub(crate) news: mpsc::Sender<(u64, News)>,
    /// Where orders come from.
    pub(crate) order: watch::Receiver<Order>,
}

impl Keeper {
    /// Keeps `plan` running until it is ordered to stop, or it has ended and is not to be started again.
    pub(crate) async fn keep(mut self, plan: Plan) {
        let mut pause = PAUSE;
        while *self.order.borrow_and_update() == Order::Run {
            let started = Instant::now();
            let (pid, how) = match self.run(&plan).await {
                Ok(ended) => ended,
                Err(error) => return self.tell(&plan, News::Failed(error.to_string())).await,
            };
            pause = if started.elapsed() < HELD { pause } else { PAUSE };
            let again = (self.restart && *self.order.borrow() == Order::Run).then_some(pause);
            self.tell(&plan, News::Ended { pid, how, again }).await;
            let Some(wait) = again else { return };
            tokio::select! {
                () = sleep(wait) => {}
                _ = self.order.wait_for(|order| *order != Order::Run) => {}
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Runs the process once.
    async fn run(&mut self, plan: &Plan) -> io::Result<(u32, Ended)> {
        let log = Log::open(&plan.dir)?;
        let mut command = Command::new(&self.program);
        command.args(["serve", "--supervised", "--config"]).arg(plan.config());
        if let Some(how) = &self.record {
            command.arg("--record").arg(plan.dir.join("flight")).args(how);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A Ctrl-C at the terminal is for the supervisor alone: it stops the nodes.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().unwrap_or_default();
        self.tell(plan, News::Started { pid }).await;
        let events = child.stdout.take().map(|out| tokio::spawn(self.clone().events(plan.clone(), out)));
        let lines = child.stderr.take().map(|err| tokio::spawn(self.clone().lines(plan.clone(), err, log)));
        let status = self.wait(&mut child).await?;
        // Both end with the process: their other ends are closed.
        if let Some(events) = events {
            let _ended = events.await;
        }
        let last_line = match lines {
            Some(lines) => lines.await.unwrap_or_default(),
            None => String::new(),
        };
        Ok((pid, Ended { status, last_line }))
    }

    /// Waits for the end, which an order may bring about.
    async fn wait(&mut self, child: &mut Child) -> io::Result<ExitStatus> {
        // Not left in `child`, for waiting would close it: that is what tells a node to stop.
        let stdin = child.stdin.take();
        tokio::select! {
            status = child.wait() => return status,
            _ = self.order.wait_for(|order| *order != Order::Run) => {}
        }
        if *self.order.borrow() == Order::Stop {
            drop(stdin);
            tokio::select! {
                status = timeout(PATIENCE, child.wait()) => if let Ok(status) = status { return status },
                _ = self.order.wait_for(|order| *order == Order::Kill) => {}
            }
        }
        child.start_kill()?;
        child.wait().await
    }

    async fn events(self, plan: Plan, out: impl AsyncRead + Unpin) {
        let mut out = BufReader::new(out);
        let mut line = Vec::new();
        while next_line(&mut out, &mut line).await {
            if let Ok(event) = String::from_utf8_lossy(&line).trim_end().parse() {
                self.tell(&plan, News::Event(event)).await;
            }
        }
    }

    /// Writes the log; returns its last line.
    async fn lines(self, plan: Plan, err: impl AsyncRead + Unpin, mut log: Log) -> String {
        let mut err = BufReader::new(err);
        let (mut line, mut last, mut failed) = (Vec::new(), String::new(), false);
        while next_line(&mut err, &mut line).await {
            if let Err(error) = log.line(&line)
                && !std::mem::replace(&mut failed, true)
            {
                let what = format!("its log in {} can't be written: {error}", plan.dir.display());
                self.tell(&plan, News::Line(what)).await;
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            if self.verbose {
                self.tell(&plan, News::Line(text.to_owned())).await;
            }
            if !text.is_empty() {
                text.trim_start_matches("error: ").clone_into(&mut last);
            }
        }
        last
    }

    async fn tell(&self, plan: &Plan, news: News) {
        // Nobody listens any more only when all is over.
        let _over = self.news.send((plan.id, news)).await;
    }
}

/// The next line with its end, or as much of it as is bearable.
async fn next_line(input: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> bool {
    line.clear();
    matches!(input.take(LINE).read_until(b'\n', line).await, Ok(1..))
}

impl Ended {
    /// Did it stop as it was told to?
    pub(crate) fn well(&self) -> bool {
        self.status.success()
    }

    /// What it said last.
    pub(crate) fn last_line(&self) -> &str {
        &self.last_line
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status.signal(), self.status.code()) {
            (Some(signal), _) => {
                let name = match signal {
                    1 => "SIGHUP",
                    2 => "SIGINT",
                    3 => "SIGQUIT",
                    6 => "SIGABRT",
                    9 => "SIGKILL",
                    11 => "SIGSEGV",
                    15 => "SIGTERM",
                    _ => return write!(f, "was ended by signal {signal}"),
                };
                write!(f, "was ended by {name} (signal {signal})")
            }
            (None, Some(0)) => f.write_str("has stopped (code 0)"),
            (None, Some(code)) => write!(f, "has failed (code {code}): {}", self.last_line),
            (None, None) => f.write_str("has ended"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_with_their_code_or_signal() {
        let ended =
            |raw| Ended { status: ExitStatus::from_raw(raw), last_line: "no space".into() }.to_string();
        assert_eq!(ended(9), "was ended by SIGKILL (signal 9)");
        assert_eq!(ended(10), "was ended by signal 10");
        assert_eq!(ended(0), "has stopped (code 0)");
        assert_eq!(ended(1 << 8), "has failed (code 1): no space");
    }

    #[tokio::test]
    async fn lines_come_with_their_end_and_no_longer_than_bearable() {
        let long = [vec![b'x'; 65_537], b"\nlast".to_vec()].concat();
        let mut input = BufReader::new(&long[..]);
        let mut line = Vec::new();
        let mut lengths = Vec::new();
        while next_line(&mut input, &mut line).await {
            lengths.push(line.len());
        }
        assert_eq!(lengths, [65_536, 2, 4]);
    }
}

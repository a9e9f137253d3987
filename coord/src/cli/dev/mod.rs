//! `quorate dev`: a whole cluster on this machine.

mod keeper;
mod layout;
mod log;

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use keeper::{Keeper, News, Order};
use layout::Layout;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use super::{Failure, Result, client, failure::Context as _, recording::How, supervise::Event};

const EXAMPLES: &str = "\
Every node is a process of its own, so it can be killed to see what happens:
one that has ended is started again after a second. Ctrl-C stops all of them.
Run again on the same directory, the cluster goes on with its data.

Clients are served on 127.0.0.1, ports 2379, 2389, 2399 and on, without TLS and
without authentication; peers meet on the port after each, with certificates
that the first start makes, and metrics are served on the port after that. What node N logs is in DIR/node-N/log (and log.1;
8 MiB each); DIR/node-N/node.toml is a configuration for `quorate serve`.

Examples:
  quorate dev                              three nodes, data in ./quorate-data
  quorate dev --nodes 5 --data ./five --base-port 12379
  quorate dev --no-restart                 what is killed stays dead
  RUST_LOG=debug quorate dev --verbose     everything the nodes log, as it comes";

/// `quorate dev`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// How many nodes [default: 3, or as many as the directory has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=15))]
    nodes: Option<u32>,
    /// Where the cluster's data lies
    #[arg(long, value_name = "DIR", default_value = "./quorate-data")]
    data: PathBuf,
    /// The client port of node 1; node 2 has the tenth after it, and so on [default: 2379, or as before]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    base_port: Option<u16>,
    /// Leave a node that has ended as it is
    #[arg(long)]
    no_restart: bool,
    /// Record what each node's core is told, in DIR/node-N/flight: see `quorate serve --help`
    #[arg(long)]
    record: bool,
    #[command(flatten)]
    how: How,
    /// Show what the nodes log
    #[arg(long, short)]
    verbose: bool,
}

/// How long the nodes may take to serve and to elect a leader before the table is shown without one.
const START: Duration = Duration::from_secs(15);

/// How many lines of news may wait to be shown; the nodes' pipes wait for them.
const NEWS: usize = 256;

/// Runs the cluster until it is told to stop.
pub(crate) async fn run(args: Args) -> Result {
    let on = |kind| signal(kind).context("can't handle signals");
    let mut interrupt = on(SignalKind::interrupt())?;
    let mut terminate = on(SignalKind::terminate())?;
    let program = std::env::current_exe().context("can't find this program's own file")?;
    let layout = Layout::open(&args.data, args.nodes, args.base_port)?;

    let (news, receive) = mpsc::channel(NEWS);
    let (order, orders) = watch::channel(Order::Run);
    let mut keepers = JoinSet::new();
    let keeper = Keeper {
        program,
        restart: !args.no_restart,
        record: args.record.then(|| args.how.flags()),
        verbose: args.verbose,
        news,
        order: orders,
    };
    for plan in &layout.nodes {
        keepers.spawn(keeper.clone().keep(plan.clone()));
    }
    drop(keeper);

    let mut cluster =
        Cluster { layout, news: receive, nodes: BTreeMap::new(), lead: None, since: Instant::now() };
    let result = tokio::select! {
        result = cluster.watch() => result,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    if result.is_ok() {
        cluster.say(format_args!("stopping the nodes (once more to kill them)"));
    }
    order.send_replace(Order::Stop);
    let all_ended = async { while keepers.join_next().await.is_some() {} };
    let mut killing = false;
    tokio::pin!(all_ended);
    loop {
        tokio::select! {
            () = &mut all_ended => break,
            () = cluster.drain() => {}
            _ = interrupt.recv(), if !killing => killing = true,
            _ = terminate.recv(), if !killing => killing = true,
        }
        if killing {
            order.send_replace(Order::Kill);
        }
    }
    // The last of them may have said something just before it ended.
    while let Ok((node, news)) = cluster.news.try_recv() {
        cluster.take_last(node, news);
    }
    if result.is_ok() {
        cluster.say(format_args!(
            "stopped; `quorate dev` goes on with the data in {}",
            cluster.layout.dir.display()
        ));
    }
    result
}

/// What is known of the running cluster.
struct Cluster {
    layout: Layout,
    news: mpsc::Receiver<(u64, News)>,
    /// Those whose process runs.
    nodes: BTreeMap<u64, Running>,
    /// The newest term with a leader, and who that is.
    lead: Option<(u64, u64)>,
    since: Instant,
}

struct Running {
    pid: u32,
    ready: bool,
}

impl Cluster {
    /// Shows what happens, for as long as there is anything to show.
    async fn watch(&mut self) -> Result {
        // A start that takes too long is shown as it is.
        if let Ok(failed) = timeout(START, self.start()).await {
            failed?;
        }
        self.show_table();
        while let Some((node, news)) = self.news.recv().await {
            self.take(node, news);
        }
        Err(Failure::new("no node is left"))
    }

    /// Until all nodes serve and there is a leader.
    async fn start(&mut self) -> Result {
        let total = self.layout.nodes.len();
        while self.lead.is_none() || self.nodes.values().filter(|node| node.ready).count() < total {
            let Some((node, news)) = self.news.recv().await else {
                return Err(Failure::new("no node is left"));
            };
            match news {
                News::Started { pid } => {
                    self.nodes.insert(node, Running { pid, ready: false });
                }
                News::Event(Event::Ready) => {
                    if let Some(running) = self.nodes.get_mut(&node) {
                        running.ready = true;
                    }
                }
                News::Event(Event::Leader { term, leader }) => {
                    self.leads(term, leader);
                }
                // At the first start something is wrong for good: a port, the store, a certificate.
                News::Ended { how, .. } => {
                    let log = self.layout.dir.join(format!("node-{node}/log"));
                    let why =
                        if how.last_line().is_empty() { how.to_string() } else { how.last_line().to_owned() };
                    return Err(Failure::new(format!(
                        "node {node} did not start: {why} (its log: {})",
                        log.display()
                    )));
                }
                News::Failed(why) => {
                    return Err(Failure::new(format!("node {node} can't be started: {why}")));
                }
                news @ News::Line(_) => self.take(node, news),
            }
        }
        Ok(())
    }

    /// Notes and shows what has happened.
    fn take(&mut self, node: u64, news: News) {
        match news {
            News::Started { pid } => {
                self.nodes.insert(node, Running { pid, ready: false });
            }
            News::Event(Event::Ready) => {
                if let Some(running) = self.nodes.get_mut(&node) {
                    running.ready = true;
                    let pid = running.pid;
                    self.say(format_args!("node {node} is back (pid {pid})"));
                }
            }
            News::Event(Event::Leader { term, leader }) => {
                if let Some((term, leader)) = self.leads(term, leader) {
                    self.say(format_args!("node {leader} leads (term {term})"));
                }
            }
            News::Line(line) => self.say(format_args!("node {node} | {line}")),
            News::Ended { pid, how, again } => {
                self.nodes.remove(&node);
                let next = match again {
                    Some(pause) => format!("; it is started again in {} s", pause.as_secs()),
                    None if how.well() => String::new(),
                    None => "; it stays down".to_owned(),
                };
                self.say(format_args!("node {node} (pid {pid}) {how}{next}"));
            }
            News::Failed(why) => {
                self.nodes.remove(&node);
                self.say(format_args!("node {node} can't be started: {why}"));
            }
        }
    }

    /// Shows what the nodes say while they stop, one piece of news at a time.
    async fn drain(&mut self) {
        match self.news.recv().await {
            Some((node, news)) => self.take_last(node, news),
            None => std::future::pending().await,
        }
    }

    /// Of what comes while the nodes stop, shows only what is not as it should be.
    fn take_last(&mut self, node: u64, news: News) {
        match news {
            News::Ended { pid, how, .. } if !how.well() => {
                self.say(format_args!("node {node} (pid {pid}) {how}"));
            }
            news @ News::Line(_) => self.take(node, news),
            News::Ended { .. } | News::Started { .. } | News::Event(_) | News::Failed(_) => {}
        }
    }

    /// Takes in what a node says about the leader; returns it if it is news.
    fn leads(&mut self, term: u64, leader: Option<u64>) -> Option<(u64, u64)> {
        let new = (term, leader?);
        if self.lead.is_some_and(|(newest, _)| newest >= term) {
            return None;
        }
        self.lead = Some(new);
        self.lead
    }

    fn show_table(&self) {
        let mut rows = vec![["ID", "PID", "ROLE", "CLIENT", "METRICS", "DATA"].map(str::to_owned)];
        for plan in &self.layout.nodes {
            let running = self.nodes.get(&plan.id);
            let role = match (running, self.lead) {
                (None | Some(Running { ready: false, .. }), _) => "not serving yet",
                (Some(_), None) => "no leader yet",
                (Some(_), Some((_, leader))) if leader == plan.id => "leader",
                (Some(_), Some(_)) => "follower",
            };
            rows.push([
                plan.id.to_string(),
                running.map_or_else(|| "-".to_owned(), |running| running.pid.to_string()),
                role.to_owned(),
                format!("http://{}", plan.client),
                plan.metrics.map_or_else(|| "-".to_owned(), |address| format!("http://{address}/metrics")),
                plan.dir.display().to_string(),
            ]);
        }
        let urls: Vec<String> = self.layout.nodes.iter().map(|plan| plan.client.to_string()).collect();
        let program = std::env::args().next().unwrap_or_else(|| "quorate".to_owned());
        let (what, urls) =
            (if self.layout.fresh { "a new cluster" } else { "the cluster that was there" }, urls.join(","));
        self.out(format_args!(
            "quorate dev: {what}, id {:016x}\n\n{}\n\
             Try:  {program} put greeting hello --endpoints {urls}\n      \
             ETCDCTL_API=3 etcdctl --endpoints {urls} get greeting\n\
             Ctrl-C stops the nodes. Their logs: {}\n",
            self.layout.cluster,
            client::table(&rows),
            self.layout.dir.join("node-N/log").display(),
        ));
    }

    /// A line, with the time since the start.
    fn say(&self, line: fmt::Arguments<'_>) {
        self.out(format_args!("[{:8.1} s] {line}", self.since.elapsed().as_secs_f64()));
    }

    fn out(&self, text: fmt::Arguments<'_>) {
        // A cluster doesn't stop because nobody looks on any more.
        let mut out = io::stdout().lock();
        let _nobody = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}

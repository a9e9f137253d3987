//! The client, before a cluster that loses, repeats and delays what it is sent.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::*;
use crate::sessions::{Client, Failure, Propose, SessionError};

/// What becomes of one proposal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Works,
    /// Not applied, and that is known.
    Refused,
    /// Applied, but the reply is lost.
    Unheard,
    /// Applied when the next proposal comes, and nobody hears of it.
    Later,
    /// Refused in a way that never gets better.
    Hopeless,
    /// No answer at all.
    Hangs,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?}")]
struct Fault(Fate);

/// A log of one replica. Fates come from a script, or else from a seed.
struct Cluster {
    machine: Sessions<Tally>,
    index: u64,
    later: Vec<Command>,
    script: Vec<Fate>,
    seed: Option<u64>,
}

#[derive(Clone)]
struct Line(Arc<Mutex<Cluster>>);

impl Cluster {
    fn apply(&mut self, command: Command) -> Reply {
        self.index += 1;
        self.machine.apply(&entry(self.index, command))
    }

    fn fate(&mut self) -> Fate {
        if !self.script.is_empty() {
            return self.script.remove(0);
        }
        let Some(seed) = &mut self.seed else { return Fate::Works };
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        [Fate::Works, Fate::Refused, Fate::Unheard, Fate::Later][(*seed >> 60) as usize % 4]
    }
}

impl Propose for Line {
    type Error = Fault;

    async fn propose(&self, command: Command) -> Result<Reply, Fault> {
        tokio::task::yield_now().await;
        let fate = self.0.lock().unwrap().fate();
        if fate == Fate::Hangs {
            std::future::pending::<()>().await;
        }
        let mut cluster = self.0.lock().unwrap();
        // Delayed ones arrive in another order, and one of them twice.
        let mut later = std::mem::take(&mut cluster.later);
        later.extend(later.first().cloned());
        for late in later.into_iter().rev() {
            cluster.apply(late);
        }
        match fate {
            Fate::Works => return Ok(cluster.apply(command)),
            Fate::Unheard => drop(cluster.apply(command)),
            Fate::Later => cluster.later.push(command),
            Fate::Refused | Fate::Hopeless | Fate::Hangs => {}
        }
        Err(Fault(fate))
    }

    fn failure(Fault(fate): &Fault) -> Failure {
        let maybe_applied = matches!(fate, Fate::Unheard | Fate::Later);
        Failure { maybe_applied, again: *fate != Fate::Hopeless }
    }
}

impl Line {
    fn new(limits: Limits) -> Self {
        let (later, script) = (Vec::new(), Vec::new());
        let machine = sessions(limits);
        Self(Arc::new(Mutex::new(Cluster { machine, index: 0, later, script, seed: None })))
    }

    fn script(&self, fates: &[Fate]) {
        self.0.lock().unwrap().script = fates.to_vec();
    }

    fn apply(&self, command: Command) -> Reply {
        self.0.lock().unwrap().apply(command)
    }

    fn applied(&self) -> Vec<Bytes> {
        self.0.lock().unwrap().machine.machine().0.clone()
    }

    fn client(&self) -> Client<Tally, Self> {
        Client::new(self.clone()).timeout(Duration::from_secs(60)).clock(|| 0)
    }
}

#[tokio::test(start_paused = true)]
async fn many_callers_each_have_their_command_applied_once() {
    for seed in 0..40 {
        // A window so small that most have to wait, and so few bytes that it is full at times.
        let line = Line::new(Limits { sessions: 2, outstanding: 3, reply_bytes: 12, idle: None });
        line.0.lock().unwrap().seed = Some(seed);
        let client = Arc::new(line.client());
        let callers = (0..8).map(|caller| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut replies = Vec::new();
                for n in 0..10 {
                    let command = Bytes::from(format!("{caller}:{n}"));
                    replies.push((command.clone(), client.propose(command).await.unwrap()));
                }
                replies
            })
        });
        let mut replies = Vec::new();
        for caller in callers.collect::<Vec<_>>() {
            replies.extend(caller.await.unwrap());
        }
        let applied = line.applied();
        assert_eq!(applied.len(), 80, "seed {seed}");
        for (command, reply) in replies {
            let place = applied.iter().position(|applied| *applied == command).unwrap();
            assert_eq!(reply, reply_to(&command, place + 1), "seed {seed}");
        }
        assert_eq!(applied.iter().collect::<BTreeSet<_>>().len(), 80, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_expired_is_replaced_unless_nobody_knows_what_happened() {
    use Fate::{Hopeless, Later, Refused, Unheard, Works};
    let line = Line::new(small());
    let client = line.client();
    let first = client.register().await.unwrap();
    assert_eq!(client.register().await, Ok(first));
    line.apply(Command::Expire { session: first, time: 0 });
    line.script(&[Refused, Works]);
    assert_eq!(client.propose("a").await.unwrap(), "a#1");
    let second = client.session().unwrap();
    assert_ne!(second, first);

    // Applied, but unheard, and then the session ends.
    for fate in [Unheard, Later] {
        let session = client.session().unwrap();
        line.script(&[fate]);
        let mut doomed = Box::pin(client.propose("b"));
        tokio::select! {
            biased;
            ended = &mut doomed => panic!("{ended:?}"),
            () = tokio::time::sleep(Duration::from_micros(500)) => {}
        }
        line.apply(Command::Expire { session, time: 0 });
        let expired = doomed.await.unwrap_err();
        assert_eq!(expired, SessionError::Expired { session, last: format!("{fate:?}") });
        assert_eq!(client.session(), None);
        assert!(client.register().await.is_ok());
    }
    assert_eq!(line.applied(), ["a", "b"], "the one that was late found its session gone");

    // What is hopeless after something that may have happened is unknown, not refused.
    line.script(&[Hopeless]);
    assert_eq!(client.propose("c").await, Err(SessionError::Refused(Fault(Hopeless))));
    line.script(&[Unheard, Hopeless]);
    let unknown = client.propose("d").await;
    assert!(matches!(&unknown, Err(SessionError::Unknown { last, .. }) if last == "Hopeless"), "{unknown:?}");
    assert_eq!(client.propose("e").await.unwrap(), "e#4");
}

#[tokio::test(start_paused = true)]
async fn what_time_runs_out_on_is_told_apart() {
    use Fate::{Hangs, Refused, Unheard, Works};
    let line = Line::new(small());
    let client = line.client().timeout(Duration::from_millis(50));
    // The command was never sent.
    line.script(&[Hangs]);
    assert!(matches!(client.propose("a").await, Err(SessionError::NotApplied { .. })));
    client.register().await.unwrap();
    line.script(&[Refused; 20]);
    assert!(matches!(client.propose("a").await, Err(SessionError::NotApplied { .. })));
    line.script(&[Refused, Hangs]);
    assert!(matches!(client.propose("a").await, Err(SessionError::Unknown { .. })));
    line.script(&[Unheard, Refused, Refused, Refused, Refused, Refused, Refused, Refused]);
    assert!(matches!(client.propose("b").await, Err(SessionError::Unknown { .. })));
    line.script(&[Works]);
    assert_eq!(client.propose("c").await.unwrap(), "c#2");
    assert_eq!(line.applied(), ["b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_gives_its_place_back() {
    let line = Line::new(Limits { outstanding: 2, ..small() });
    let client = Arc::new(line.client());
    client.register().await.unwrap();
    line.script(&[Fate::Hangs, Fate::Hangs]);
    let spawn = |text: &'static str| {
        let client = client.clone();
        tokio::spawn(async move { client.propose(text).await })
    };
    let hanging = ["a", "b"].map(spawn);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let waiting = ["c", "d", "e"].map(spawn);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(line.applied(), [""; 0], "no place is free");
    for hanging in &hanging {
        hanging.abort();
    }
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    assert_eq!(line.applied().len(), 3);
    assert!(client.close().await.is_ok());
    assert_eq!((client.session(), line.0.lock().unwrap().machine.open()), (None, 0));
    assert!(client.propose("f").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_client_says_the_time() {
    let idle = Some(Duration::from_millis(100));
    let line = Line::new(Limits { idle, ..small() });
    let time = Arc::new(AtomicU64::new(1_000));
    let client = line.client().clock({
        let time = time.clone();
        move || time.load(Relaxed)
    });
    client.propose("a").await.unwrap();
    let first = client.session();
    time.store(1_100, Relaxed);
    client.propose("b").await.unwrap();
    assert_eq!(client.session(), first);
    time.store(1_201, Relaxed);
    client.propose("c").await.unwrap();
    assert_ne!(client.session(), first);
    assert_eq!(line.applied(), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_may_wait_for_ever() {
    let line = Line::new(small());
    let client = line.client().timeout(Duration::MAX);
    line.script(&[Fate::Refused; 20]);
    assert_eq!(client.propose("a").await.unwrap(), "a#1");
    assert!(client.close().await.is_ok());
}

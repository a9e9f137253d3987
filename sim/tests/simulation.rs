//! A user's own state machine: what is wrong with it is found, told, and made small.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::{Config, Entry, NodeId, StateMachine};
use quorate_sim::{
    Faults, Profile, Simulation, Strike,
    workload::{Completed, Op, Random, Replicated, State},
};

/// Accounts, between which money is moved: its sum never changes, if the machine is right.
#[derive(Clone, Hash, Default, Debug)]
struct Bank<const LEAKS: bool> {
    accounts: [i64; 4],
}

impl<const LEAKS: bool> StateMachine for Bank<LEAKS> {
    type Command = Bytes;
    type Reply = Bytes;

    fn apply(&mut self, entry: &Entry) -> Bytes {
        let [from, to, amount] = [0, 1, 2].map(|at| entry.payload.get(at).copied().unwrap_or(0));
        let amount = i64::from(amount);
        self.accounts[usize::from(from % 4)] -= amount;
        // What is moved to oneself is lost on the way, once in a while.
        if !(LEAKS && from == to && amount > 250) {
            self.accounts[usize::from(to % 4)] += amount;
        }
        self.sum()
    }
}

impl<const LEAKS: bool> Bank<LEAKS> {
    fn sum(&self) -> Bytes {
        Bytes::copy_from_slice(&self.accounts.iter().sum::<i64>().to_le_bytes())
    }
}

impl<const LEAKS: bool> Replicated for Bank<LEAKS> {
    fn snapshot(&self) -> State {
        State::clone_of(self)
    }

    fn restored(state: &State) -> Result<Self, String> {
        state.to_value()
    }

    fn read(&self, _query: &[u8]) -> Bytes {
        self.sum()
    }
}

fn transfers(_client: usize, random: &mut Random) -> Op {
    if random.chance(0.3) {
        return Op::Read(Bytes::new());
    }
    let mut byte = |below| random.below(below) as u8;
    Op::Write(Bytes::copy_from_slice(&[byte(4), byte(4), byte(256)]))
}

/// Nobody ever sees money come or go.
fn conserved() -> impl FnMut(&Completed) -> Result<(), String> + Send {
    |completed: &Completed| match completed.reply.as_deref() {
        Some(sum) if sum.iter().any(|byte| *byte != 0) => Err(format!("the sum is {sum:?}")),
        Some(_) | None => Ok(()),
    }
}

#[test]
fn a_machine_that_is_right_passes() {
    let simulation = Simulation::builder()
        .machine(Bank::<false>::default)
        .workload(transfers)
        .checker(conserved)
        .duration(Duration::from_secs(10))
        .seeds(0..20);
    let summary = simulation.run().unwrap();
    assert_eq!(summary.runs, 20);
}

#[test]
fn a_checker_of_the_users_finds_what_only_it_can_know() {
    let simulation = Simulation::builder()
        .machine(Bank::<true>::default)
        .workload(transfers)
        .checker(conserved)
        .profile(Profile::Network)
        .seeds(0..50);
    let failure = simulation.clone().run().unwrap_err();
    assert_eq!(failure.violation().invariant, "user");
    assert!(failure.to_string().contains("the sum is"), "{failure}");
    assert!(failure.trace().iter().any(|line| line.contains("Propose")));
    let folder = tempfile::tempdir().unwrap();
    failure.write(folder.path()).unwrap();
    let written = std::fs::File::open(folder.path().join(format!("seed-{}.jsonl", failure.seed()))).unwrap();
    let schedule = quorate_sim::Schedule::read(std::io::BufReader::new(written)).unwrap();
    let replayed = simulation.replay(&schedule);
    assert!(replayed.same && replayed.to_the_bit, "{replayed:?}");
}

#[test]
fn what_is_planned_happens_and_nothing_else_if_nothing_else_is_to() {
    let simulation = Simulation::builder()
        .machine(Bank::<false>::default)
        .workload(transfers)
        .profile(Profile::Calm)
        .nodes(3)
        .config(Config { max_inflight_messages: 3, ..Config::new(NodeId(1)) })
        .faults(Faults { loss: Some(0.05), ..Faults::default() })
        .at(Duration::from_secs(2), Strike::CrashLeader(Duration::from_secs(3)))
        .at(Duration::from_secs(7), Strike::Partition(vec![NodeId(1)], Duration::from_secs(1)))
        .at(Duration::from_secs(9), Strike::Pause(NodeId(2), Duration::from_secs(1)))
        .duration(Duration::from_secs(12))
        .sessions(true)
        .seeds(0..5)
        .jobs(1);
    let summary = simulation.run().unwrap();
    use quorate_sim::Count;
    assert_eq!(summary.counts[Count::Crashes], 5);
    assert_eq!(summary.counts[Count::Pauses], 5);
    assert!(summary.counts[Count::Lost] > 0 && summary.counts[Count::Cut] > 0);
    assert_eq!(summary.counts[Count::Duplicated] + summary.counts[Count::DiskFailures], 0);
}

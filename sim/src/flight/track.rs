//! Replays one node: a core of its own for each of its lives, told what was recorded, when it was recorded, and held against it.

use quorate_core::{
    Action, Config, Input, Instant, Raft, Recovered, Rejected,
    recording::{Begin, Digest, Ended, Head, Payloads, Polled, pack},
};

use super::{
    FlightError, FlightViolation, Totals,
    known::Known,
    read::{Item, Recording},
    view::{Told, View},
    wire::Wire,
};
use crate::{
    bounds,
    violation::{Broken, Verdict, hold},
    watch::{Seen, Step, Stimulus},
};

/// The recordings of one node, in the order of its lives.
pub(super) struct Track {
    pub(super) node: u64,
    recording: Recording,
    next: Option<Item>,
    /// µs between the earliest start of all and this life's.
    begins: u64,
    origin: Instant,
    now: Instant,
    life: Option<Life>,
    view: Option<View>,
    pub(super) totals: Totals,
}

/// A life that goes on.
struct Life {
    raft: Raft,
    incarnation: u64,
    /// Which segment of it is being read.
    segment: u64,
    /// Those that were left out are counted.
    steps: u64,
    /// Of all actions in this segment.
    digest: Digest,
    /// The last step, not told to onlookers yet: what it led to comes with the next poll.
    step: Option<(Instant, Stimulus, Result<(), Rejected>)>,
}

impl Track {
    pub(super) fn new(node: u64, recording: Recording) -> Self {
        let totals = Totals { node, ..Totals::default() };
        let zero = Instant(0);
        Self {
            node,
            recording,
            next: None,
            begins: 0,
            origin: zero,
            now: zero,
            life: None,
            view: None,
            totals,
        }
    }

    /// Reads what comes next. `epoch`: when the earliest of all recordings began, by the wall clock.
    pub(super) fn fetch(&mut self, epoch: u64) -> Result<(), FlightError> {
        if self.next.is_some() {
            return Ok(());
        }
        self.next = self.recording.next()?;
        self.totals.torn |= self.recording.torn;
        match &self.next {
            Some(Item::Begin(head, begin)) if !self.follows(head, begin) => {
                self.begins = head.unix_us.saturating_sub(epoch);
                (self.origin, self.now) = (head.now, head.now);
            }
            Some(Item::Step(now, _)) => self.now = *now,
            Some(Item::Begin(..) | Item::Polled(..) | Item::End(_)) | None => {}
        }
        Ok(())
    }

    /// Does this segment go on where the last one ended?
    fn follows(&self, head: &Head, begin: &Begin) -> bool {
        let next = |life: &Life| life.incarnation == head.incarnation.0 && life.segment + 1 == head.segment;
        matches!(begin, Begin::Full(_)) && self.life.as_ref().is_some_and(next)
    }

    /// What comes next, and when: µs since the earliest start.
    pub(super) fn next(&self) -> Option<(u64, &Item)> {
        self.next.as_ref().map(|item| (self.at(), item))
    }

    fn at(&self) -> u64 {
        self.begins + self.now.since(self.origin)
    }

    /// Does what comes next.
    pub(super) fn advance(&mut self, known: &mut Known, wire: &mut Wire) -> Result<(), FlightError> {
        let Some(item) = self.next.take() else { return Ok(()) };
        match item {
            Item::Begin(head, begin) => self.begin(&head, begin, known, wire),
            Item::End(ended) => {
                if self.life.is_none() {
                    return Err(self.malformed("an end before any beginning: the recording is damaged"));
                }
                self.end_life(wire, Some(ended)).map_err(|broken| self.violated(broken))
            }
            Item::Step(..) | Item::Polled(..) if self.life.is_none() => {
                Err(self.malformed("a life has no beginning: the recording is damaged"))
            }
            Item::Step(now, input) => {
                self.step(now, input, known, wire).map_err(|broken| self.violated(broken))
            }
            Item::Polled(polled, actions) => {
                self.polled(&polled, actions.as_deref(), known, wire).map_err(|broken| self.violated(broken))
            }
        }
    }

    /// There is nothing more: the last life was cut off, if it has no end.
    pub(super) fn finish(&mut self, wire: &mut Wire) -> Result<(), FlightError> {
        self.end_life(wire, None).map_err(|broken| self.violated(broken))
    }

    /// A segment begins.
    fn begin(
        &mut self,
        head: &Head,
        begin: Begin,
        known: &mut Known,
        wire: &mut Wire,
    ) -> Result<(), FlightError> {
        if head.node.0 != self.node {
            let what = format!("a life of node {} in a recording of node {}", head.node, self.node);
            return Err(self.malformed(&what));
        }
        let follows = self.follows(head, &begin);
        match begin {
            Begin::Start(start) => {
                self.end_life(wire, None).map_err(|broken| self.violated(broken))?;
                let (config, recovered) = *start;
                self.start(head, &config, &recovered, known, wire)
            }
            Begin::Full(raft) if follows => self.go_on(head, &raft).map_err(|broken| self.violated(broken)),
            Begin::Full(raft) | Begin::Gap(raft) => self.begin_midway(head, *raft, known, wire),
        }
    }

    fn start(
        &mut self,
        head: &Head,
        config: &Config,
        recovered: &Recovered,
        known: &mut Known,
        wire: &mut Wire,
    ) -> Result<(), FlightError> {
        let incarnation = recovered.incarnation.0;
        let raft = Raft::new(config.clone(), recovered.clone(), head.now)
            .map_err(|error| self.malformed(&format!("no node starts from this: {error}")))?;
        if config.id.0 != self.node || recovered.incarnation != head.incarnation {
            return Err(self.malformed("another node or life starts than the recording says"));
        }
        let slot = self.slot();
        let at = self.at();
        wire.trace.line(at, || format!("n{} starts, life {incarnation}", self.node));
        let checked = match &self.view {
            None => {
                let seen = Seen::Provisioned { slot, membership: &recovered.base_membership };
                wire.see(at, &seen)
            }
            Some(view) => self.is_later(incarnation).and_then(|()| {
                // A life in between may not have been recorded.
                let next = incarnation == self.totals.incarnation + 1;
                view.check_next_life(recovered, next && self.totals.ended == Some(Ended::Stopped))
            }),
        };
        self.totals.incarnation = incarnation;
        self.totals.lives += 1;
        self.totals.segments += 1;
        self.totals.ended = None;
        let floor = self.view.as_ref().map_or(0, |view| view.requests.floor);
        let viewed = checked.and_then(|()| View::start(config, recovered, &raft, known));
        let mut view = viewed.map_err(|broken| self.violated(broken))?;
        view.requests.floor = floor;
        self.view = Some(view);
        let seen = wire.see(at, &Seen::Started { slot, raft: &raft });
        self.life = Some(Life::new(raft, head));
        seen.map_err(|broken| self.violated(broken))
    }

    fn is_later(&self, incarnation: u64) -> Verdict {
        let (n, last) = (self.node, self.totals.incarnation);
        hold!(incarnation > last, "contract", "life {incarnation} of node {n} comes after life {last}");
        Ok(())
    }

    /// A segment goes on where the last one ended: its core must be the one to which the steps there have led.
    fn go_on(&mut self, head: &Head, raft: &Raft) -> Verdict {
        let n = self.node;
        let Some(life) = &mut self.life else { return Ok(()) };
        hold!(
            life.steps == head.steps,
            "replay",
            "node {n} has taken {} steps before segment {}, but {} were recorded",
            life.steps,
            head.segment,
            head.steps
        );
        let packed = |raft: &Raft| {
            let mut bytes = Vec::new();
            pack(raft, Payloads::LeftOut, &mut bytes);
            bytes
        };
        hold!(
            packed(raft) == packed(&life.raft),
            "replay",
            "the core with which segment {} of node {n} begins is not the one to which the steps before it lead: {:?}, {:?}",
            head.segment,
            raft.status(),
            life.raft.status()
        );
        (life.segment, life.digest) = (head.segment, Digest::default());
        self.totals.segments += 1;
        Ok(())
    }

    /// The recording begins in the middle of a life, or goes on there behind a gap.
    fn begin_midway(
        &mut self,
        head: &Head,
        raft: Raft,
        known: &mut Known,
        wire: &mut Wire,
    ) -> Result<(), FlightError> {
        raft.config()
            .validate()
            .map_err(|error| self.malformed(&format!("no node is set up like this: {error}")))?;
        if raft.id().0 != self.node || raft.status().incarnation != head.incarnation {
            return Err(self.malformed("the core is another's than the recording says"));
        }
        let (slot, at, incarnation) = (self.slot(), self.at(), head.incarnation.0);
        let same = self.life.as_ref().is_some_and(|life| life.incarnation == incarnation);
        self.end_life(wire, None).map_err(|broken| self.violated(broken))?;
        let what = if same { "goes on behind a gap" } else { "is met in the middle" };
        wire.trace
            .line(at, || format!("n{} {what}, life {incarnation}, after {} steps", self.node, head.steps));
        let viewed = View::midway(&raft, known).and_then(|mut view| {
            if let Some(before) = &self.view {
                if same { before.check_gap(&view) } else { self.is_later(incarnation) }?;
                view.requests.floor = before.requests.floor;
            } else {
                let recovered = raft.as_recovered();
                wire.see(at, &Seen::Provisioned { slot, membership: &recovered.base_membership })?;
            }
            wire.see(at, &Seen::Started { slot, raft: &raft })?;
            Ok(view)
        });
        self.view = Some(viewed.map_err(|broken| self.violated(broken))?);
        if same {
            self.totals.gaps += 1;
        } else {
            (self.totals.midway, self.totals.lives) = (self.totals.midway + 1, self.totals.lives + 1);
        }
        (self.totals.incarnation, self.totals.ended) = (incarnation, None);
        self.totals.segments += 1;
        self.life = Some(Life::new(raft, head));
        Ok(())
    }

    fn step(&mut self, now: Instant, input: Input, known: &mut Known, wire: &mut Wire) -> Verdict {
        let (at, slot, n) = (self.at(), self.slot(), self.node);
        let (Some(life), Some(view)) = (&mut self.life, &mut self.view) else { return Ok(()) };
        life.tell(slot, at, &[], wire)?;
        life.steps += 1;
        self.totals.steps += 1;
        wire.trace.line(at, || format!("n{n} <- {input:?}"));
        let mut id = 0;
        if let Input::Receive { from, message } = &input {
            id = wire.received(at, *from, n, message)?;
        }
        if let Input::Loaded { result: quorate_core::Loaded::Entries(runs), .. } = &input {
            runs.iter().try_for_each(|run| known.note_run(n, None, run))?;
        }
        let told = Told::of(&input);
        let asked = view.requests.ask(&input, &life.raft);
        let stimulus = Stimulus::of(&input, id);
        let result = life.raft.step(now, input);
        match result {
            Ok(()) => {
                view.on_taken(&told, &life.raft);
                view.requests.take(n, asked, &life.raft)?;
                if let Told::Persisted(seq) = told {
                    view.on_persisted(seq, known, |write| wire.see(at, &Seen::Durable { slot, write }))?;
                }
                let seen = match told {
                    Told::Applied(index) => Some(Seen::Applied { slot, index, restored: false }),
                    Told::Snapshot(index) => Some(Seen::SnapshotTaken { slot, index }),
                    _ => None,
                };
                seen.map_or(Ok(()), |seen| wire.see(at, &seen))?;
            }
            Err(rejected) => {
                self.totals.refused += 1;
                wire.trace.line(at, || format!("n{n} refuses: {rejected}"));
                let wrongly = matches!(
                    rejected,
                    Rejected::BadLoad | Rejected::StaleReceipt | Rejected::BadApplied { .. }
                );
                hold!(!wrongly, "contract", "node {n} refuses what its own driver says: {rejected}");
            }
        }
        life.step = Some((now, stimulus, result));
        view.after_step(&life.raft)
    }

    fn polled(
        &mut self,
        polled: &Polled,
        recorded: Option<&[Action]>,
        known: &mut Known,
        wire: &mut Wire,
    ) -> Verdict {
        let (at, slot, n) = (self.at(), self.slot(), self.node);
        let (Some(life), Some(view)) = (&mut self.life, &mut self.view) else { return Ok(()) };
        let mut actions = Vec::new();
        let wanted = usize::try_from(polled.count).unwrap_or(usize::MAX);
        // One more than was recorded is asked for if the recorder did, too: it found nothing.
        while actions.len() < wanted || !polled.more && actions.len() == wanted {
            let Some(action) = life.raft.poll() else { break };
            life.digest.action(&action);
            actions.push(action);
        }
        let same = actions.len() == wanted && life.digest.value().to_le_bytes() == polled.digest;
        let difference = || difference(&actions, polled, recorded);
        if same || recorded.is_none() {
            hold!(same, "replay", "{}", difference());
        }
        self.totals.actions += actions.len() as u64;
        for action in &actions {
            wire.trace.line(at, || format!("n{n} -> {action:?}"));
        }
        // What was really done is held against the invariants, though this core does something else.
        let others = (!same).then_some(recorded).flatten();
        let done = others.unwrap_or(&actions);
        for action in done {
            if let Action::Write(write) = action {
                hold!(!view.stopped, "D4", "node {n} goes on after its disk failed: {action:?}");
                let waiting = view.waiting();
                bounds::check_write(n, &view.config, write, waiting)?;
                view.on_write(write, &life.raft, known)?;
            }
        }
        if same && !polled.more {
            view.settle(&life.raft, known)?;
        }
        for action in done {
            view.on_action(action, &life.raft, known)?;
        }
        // Who looks through all of a node each time, looks long.
        if same && !polled.more && self.totals.actions.is_multiple_of(8) {
            let status = life.raft.status();
            bounds::check_status(&status, &view.config, view.requests.open(status.pending))?;
        }
        hold!(same, "replay", "{}", difference());
        if view.stopped && !polled.more {
            view.requests.all_resolved(n)?;
        }
        life.tell(slot, at, &actions, wire)?;
        for action in &actions {
            let (to, message) = match action {
                Action::Send { to, message } => (*to, message),
                Action::SendSnapshot(send) => (send.to, &send.message),
                _ => continue,
            };
            wire.sent(at, n, to, message)?;
        }
        view.keep(actions);
        Ok(())
    }

    /// A process is gone; `ended` is how its recording says so.
    fn end_life(&mut self, wire: &mut Wire, ended: Option<Ended>) -> Verdict {
        let (at, slot, n) = (self.at(), self.slot(), self.node);
        let Some(mut life) = self.life.take() else { return Ok(()) };
        self.totals.ended = ended;
        wire.trace.line(at, || format!("n{n} ends: {}", super::how(ended)));
        let lost = self.view.as_ref().map_or(0, |view| view.writes.len());
        life.tell(slot, at, &[], wire)?;
        wire.see(at, &Seen::Crashed { slot, kept: 0, lost })
    }

    fn slot(&self) -> usize {
        usize::try_from(self.node - 1).unwrap_or(usize::MAX)
    }

    fn malformed(&self, what: &str) -> FlightError {
        self.recording.malformed(what)
    }

    fn violated(&self, Broken(invariant, what): Broken) -> FlightError {
        FlightError::Violated(Box::new(FlightViolation {
            invariant,
            node: self.node,
            incarnation: self.life.as_ref().map_or(self.totals.incarnation, |life| life.incarnation),
            step: self.life.as_ref().map_or(0, |life| life.steps),
            at: self.at(),
            file: self.recording.file(),
            note: self.recording.note,
            what,
        }))
    }
}

impl Life {
    fn new(raft: Raft, head: &Head) -> Self {
        Self {
            raft,
            incarnation: head.incarnation.0,
            segment: head.segment,
            steps: head.steps,
            digest: Digest::default(),
            step: None,
        }
    }

    /// Tells onlookers of the last step, and what has come out since.
    fn tell(&mut self, slot: usize, at: u64, actions: &[Action], wire: &mut Wire) -> Verdict {
        let Some((now, stimulus, result)) = self.step.take() else { return Ok(()) };
        let step = Step { slot, now, stimulus: &stimulus, result, actions, raft: &self.raft };
        wire.see(at, &Seen::Stepped(step))
    }
}

impl View {
    /// Bytes that are issued and not known to be durable.
    fn waiting(&self) -> usize {
        self.writes.iter().map(quorate_core::Write::bytes).sum()
    }

    /// Keeps the writes until they are durable.
    fn keep(&mut self, actions: Vec<Action>) {
        for action in actions {
            if let Action::Write(write) = action {
                self.writes.push_back(write);
            }
        }
    }
}

/// The first action that isn't what was recorded, in words.
fn difference(actions: &[Action], polled: &Polled, recorded: Option<&[Action]>) -> String {
    let Some(recorded) = recorded else {
        return format!(
            "the core does something else than was recorded: {} actions then, {} now: {actions:?}",
            polled.count,
            actions.len()
        );
    };
    let mut pairs = recorded.iter().zip(actions);
    match pairs.find(|(then, now)| then != now) {
        Some((then, now)) => {
            format!("the core does something else than was recorded: then {then:?}, now {now:?}")
        }
        None => format!(
            "the core does something else than was recorded: {} actions then, {} now; of those recorded here the digest differs, or \
             {:?} are missing",
            polled.count,
            actions.len(),
            recorded.get(actions.len())
        ),
    }
}

//! Holds one step at a time against the specification.
//!
//! Every action reads and changes one node's part of each variable, and of `msgs` one message. So it is shown no more than that:
//! functions whose domain is that one node, and that message if it was sent. What it is not shown it could neither use nor change, and
//! nor does the step. [`Judge::whole`] shows everything, and asks `Next`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::LazyLock,
};

use tla_eval::{Evaluator, Spec, State, Value};

use super::value::{int, pair, record};
use crate::violation::{Broken, Verdict};

const STEPS: &str = include_str!("../../spec/steps.tla");
const QUORATE: &str = include_str!("../../spec/quorate.tla");

/// Read once.
static SPEC: LazyLock<Result<Spec, String>> =
    LazyLock::new(|| Spec::parse(&in_one_module()).map_err(|error| error.to_string()));

/// The two modules as one: tla-eval 0.2 looks for the names in an argument in the module of the operator that it is given to.
fn in_one_module() -> String {
    let end = |line: &&str| line.starts_with("====");
    let quorate = QUORATE.lines().take_while(|line| !end(line));
    let steps = STEPS.lines().skip_while(|line| *line != "EXTENDS quorate").skip(1);
    quorate.chain(steps).collect::<Vec<_>>().join("\n")
}

/// The variables that have a part for each node.
pub(super) const VARIABLES: [&str; 12] =
    ["term", "vote", "role", "log", "commit", "agreed", "votes", "round", "match", "disk", "queue", "msgs"];

/// What a step is meant to be.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) action: &'static str,
    pub(super) node: u64,
    pub(super) message: Option<Value>,
    pub(super) index: u64,
    pub(super) members: Option<Value>,
    pub(super) id: (u64, u64),
}

impl Event {
    pub(super) const fn new(action: &'static str, node: u64) -> Self {
        Self { action, node, message: None, index: 0, members: None, id: (0, 0) }
    }

    pub(super) fn about(self, message: Option<&Value>) -> Self {
        Self { message: message.cloned(), ..self }
    }

    pub(super) fn at(self, index: u64) -> Self {
        Self { index, ..self }
    }

    fn is_sending(&self) -> bool {
        self.action.starts_with("Send")
    }

    /// What the variables of `steps.tla` say of it.
    fn values(&self) -> [Change; 6] {
        let nobody = || {
            let nothing =
                [("type", Value::string("none")), ("from", int(0)), ("to", int(0)), ("term", int(0))];
            record(nothing)
        };
        let nothing = || record(["new", "old", "learners"].map(|name| (name, Value::set([]))));
        [
            ("action", Value::string(self.action)),
            ("node", int(self.node)),
            ("message", self.message.clone().unwrap_or_else(nobody)),
            ("index", int(self.index)),
            ("members", self.members.clone().unwrap_or_else(nothing)),
            ("id", pair(self.id.0, self.id.1)),
        ]
    }
}

/// A change of one node's part of a variable.
pub(super) type Change = (&'static str, Value);

/// One node's part of all variables, as it is and as it is to be.
#[derive(Debug, Default)]
struct View {
    from: State,
    to: State,
}

pub(super) struct Judge {
    evaluator: Evaluator<'static>,
    views: Vec<View>,
    sent: BTreeSet<Value>,
    /// Shows everything, and asks all of `Next`.
    pub(super) whole: bool,
    /// How often each action was taken.
    pub(super) taken: BTreeMap<&'static str, u64>,
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl Judge {
    pub(super) fn new(slots: usize, asks_first: bool) -> Result<Self, Broken> {
        let spec = SPEC.as_ref().map_err(|error| Broken("spec", error.clone()))?;
        let constants = BTreeMap::from([
            ("Server".to_owned(), Value::interval(1, slots as i64)),
            ("AsksFirst".to_owned(), Value::Bool(asks_first)),
            ("Message".to_owned(), Value::set([])),
            ("Membership".to_owned(), Value::set([])),
        ]);
        let evaluator = Evaluator::new(spec, constants).map_err(|error| Broken("spec", error.to_string()))?;
        let views = (0..slots).map(|_| View::default()).collect();
        Ok(Self { evaluator, views, sent: BTreeSet::new(), whole: false, taken: BTreeMap::new() })
    }

    /// A node as it is set up: the specification must allow it.
    pub(super) fn begin(&mut self, node: u64, parts: Vec<Change>) -> Verdict {
        let view = &mut self.views[node as usize - 1];
        for (variable, part) in parts {
            view.from.insert(variable.to_owned(), only(node, part));
        }
        view.from.insert("msgs".to_owned(), Value::set([]));
        let event = Event::new("Init", node).values();
        view.from.extend(event.map(|(variable, value)| (variable.to_owned(), value)));
        view.to = view.from.clone();
        match self.evaluator.holds_at("Init", &view.from) {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(Broken("spec", format!("node {node}: its state when it was set up is not `Init`")))
            }
            Err(error) => Err(Broken("spec", format!("node {node}: `Init` can't be evaluated: {error}"))),
        }
    }

    /// A node in the midst of things, and what was sent by then.
    #[cfg(test)]
    pub(super) fn put(&mut self, node: u64, parts: Vec<Change>, sent: &[Value]) {
        let event = Event::new("Init", node).values();
        let parts = parts.into_iter().map(|(variable, part)| (variable.to_owned(), only(node, part)));
        let view = &mut self.views[node as usize - 1];
        view.from.extend(parts);
        view.from.insert("msgs".to_owned(), Value::set([]));
        view.from.extend(event.map(|(variable, value)| (variable.to_owned(), value)));
        view.to = view.from.clone();
        self.sent.extend(sent.iter().cloned());
    }

    /// A step is taken: it must be what it is meant to be.
    pub(super) fn take(&mut self, event: &Event, changes: Vec<Change>) -> Verdict {
        self.prepare(event, &changes);
        let allowed = self.ask(&self.name_of(event), event.node);
        *self.taken.entry(event.action).or_default() += 1;
        match allowed {
            Ok(true) => {}
            Ok(false) => return Err(self.refused(event, &changes)),
            Err(error) => {
                let why = self.refused(event, &changes).1;
                return Err(Broken("spec", format!("{why} ({error})")));
            }
        }
        let view = &mut self.views[event.node as usize - 1];
        for (variable, _) in changes {
            if let (Some(from), Some(to)) = (view.from.get_mut(variable), view.to.get(variable)) {
                from.clone_from(to);
            }
        }
        if event.is_sending() {
            self.sent.extend(event.message.clone());
        }
        Ok(())
    }

    /// Would it be allowed? Nothing changes.
    pub(super) fn allows(&mut self, event: &Event, changes: &[Change]) -> bool {
        self.prepare(event, changes);
        let allowed = self.ask(&self.name_of(event), event.node);
        let view = &mut self.views[event.node as usize - 1];
        view.to.clone_from(&view.from);
        matches!(allowed, Ok(true))
    }

    fn name_of(&self, event: &Event) -> String {
        if self.whole { "StepNext".to_owned() } else { format!("Is{}", event.action) }
    }

    fn prepare(&mut self, event: &Event, changes: &[Change]) {
        let known = match &event.message {
            Some(message) if self.sent.contains(message) => Value::set([message.clone()]),
            _ => Value::set([]),
        };
        let view = &mut self.views[event.node as usize - 1];
        let mut set = |variable: &str, from: Option<Value>, to: Value| {
            if let Some(place) = view.to.get_mut(variable) {
                *place = to;
            }
            if let (Some(place), Some(from)) = (view.from.get_mut(variable), from) {
                *place = from;
            }
        };
        for (variable, part) in changes {
            set(variable, None, only(event.node, part.clone()));
        }
        let after = match &event.message {
            Some(message) if event.is_sending() => Value::set([message.clone()]),
            _ => known.clone(),
        };
        set("msgs", Some(known), after);
        for (variable, value) in event.values() {
            set(variable, None, value);
        }
    }

    fn ask(&self, name: &str, node: u64) -> tla_eval::Result<bool> {
        let view = &self.views[node as usize - 1];
        if self.whole {
            let (from, to) = self.everything(node);
            return self.evaluator.step_allowed(name, &from, &to);
        }
        self.evaluator.step_allowed(name, &view.from, &view.to)
    }

    /// All nodes' parts and all messages, before the step and after it.
    fn everything(&self, node: u64) -> (State, State) {
        let (mut from, mut to) = (State::new(), State::new());
        let own = &self.views[node as usize - 1];
        for variable in VARIABLES {
            if variable == "msgs" {
                let mut sent = self.sent.clone();
                from.insert(variable.to_owned(), Value::Set(sent.clone()));
                if let Some(Value::Set(more)) = own.to.get(variable) {
                    sent.extend(more.iter().cloned());
                }
                to.insert(variable.to_owned(), Value::Set(sent));
                continue;
            }
            let parts = |pick: &dyn Fn(&View, bool) -> Option<Value>| {
                let views = self.views.iter().enumerate();
                let parts = views.filter_map(|(slot, view)| pick(view, slot as u64 + 1 == node)?.entries());
                Value::function(parts.flatten().collect())
            };
            from.insert(variable.to_owned(), parts(&|view, _| view.from.get(variable).cloned()));
            let picked = |view: &View, own: bool| {
                if own { view.to.get(variable) } else { view.from.get(variable) }.cloned()
            };
            to.insert(variable.to_owned(), parts(&picked));
        }
        for (state, view) in [(&mut from, &own.from), (&mut to, &own.to)] {
            let event = ["action", "node", "message", "index", "members", "id"];
            let said = event.into_iter().filter_map(|name| Some((name.to_owned(), view.get(name)?.clone())));
            state.extend(said);
        }
        (from, to)
    }

    /// Which of the action's conjuncts does not hold.
    fn refused(&self, event: &Event, changes: &[Change]) -> Broken {
        let view = &self.views[event.node as usize - 1];
        let mut told = format!("node {} can't {}", event.node, event.action);
        if let Some(message) = &event.message {
            told += &format!(" with {message}");
        }
        match self.evaluator.why_not(&format!("Is{}", event.action), &view.from, &view.to) {
            Ok(blocked) => {
                for why in blocked.iter().take(1) {
                    let (conjunct, satisfied, total) = (&why.conjunct, why.satisfied, why.total);
                    told +=
                        &format!(": `{conjunct}` does not hold ({satisfied} of its {total} conjuncts do)");
                }
                if blocked.is_empty() {
                    told += ", though each conjunct holds";
                }
            }
            Err(error) => told += &format!(": {error}"),
        }
        for name in ["term", "vote", "role", "commit", "agreed", "log", "votes", "match", "disk"] {
            if let Some(part) = view.from.get(name).and_then(|part| part.apply(&int(event.node))) {
                told += &format!("; {name} {part}");
            }
        }
        for (variable, part) in changes {
            told += &format!("; {variable}' {part}");
        }
        Broken("spec", told)
    }
}

/// The function whose domain is this node.
fn only(node: u64, part: Value) -> Value {
    Value::function(BTreeMap::from([(int(node), part)]))
}

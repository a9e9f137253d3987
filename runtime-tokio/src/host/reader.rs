//! Reads the log, beside whoever writes it.

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use quorate_core::{GroupId, Input, Load, Loaded, LogReader};
use tokio::sync::oneshot;

use super::Port;
use crate::{
    error::{StopReason, chain, panic_message},
    lane::Worker,
    metrics::StoreMeter,
    status::count,
    thread::Alive,
};

/// A question to the log of a group.
pub(crate) struct Question {
    pub(crate) group: GroupId,
    pub(crate) load: Load,
    pub(crate) port: Arc<dyn Port>,
    pub(crate) asker: Asker,
}

/// Who asks. If the log can't be read the group stops, whoever it was.
pub(crate) enum Asker {
    /// The group's core.
    Core,
    /// A feed. If the log can't be read this is dropped, after the group was told why it has to stop.
    Feed(oneshot::Sender<Loaded>),
}

/// Answers questions, for all groups.
pub(super) struct Reader<R> {
    reader: R,
    meter: Arc<StoreMeter>,
    _alive: Alive,
}

impl<R: LogReader> Reader<R> {
    pub(super) const fn new(reader: R, alive: Alive, meter: Arc<StoreMeter>) -> Self {
        Self { reader, meter, _alive: alive }
    }
}

impl<R: LogReader> Worker<Question> for Reader<R> {
    fn work(&mut self, questions: &mut VecDeque<Question>) -> ControlFlow<()> {
        for Question { group, load, port, asker } in questions.drain(..) {
            if matches!(&asker, Asker::Feed(answer) if answer.is_closed()) {
                continue;
            }
            count(&port.counters().loads, 1);
            let begun = Instant::now();
            let why = match catch_unwind(AssertUnwindSafe(|| self.reader.load(group, &load))) {
                Ok(Ok(result)) => {
                    self.meter.loaded(begun.elapsed());
                    match asker {
                        Asker::Core => port.input(Input::Loaded { id: load.id, result }),
                        Asker::Feed(answer) => drop(answer.send(result)),
                    }
                    continue;
                }
                Ok(Err(error)) => chain(&error),
                Err(panic) => format!("it panicked: {}", panic_message(&*panic)),
            };
            port.fail(StopReason::Storage(why.into()));
        }
        ControlFlow::Continue(())
    }
}

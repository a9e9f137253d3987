//! Reads the log, beside whoever writes it.

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use quorate_core::{GroupId, Input, Load, LogReader};

use super::Port;
use crate::{
    error::{StopReason, chain, panic_message},
    lane::Worker,
    metrics::StoreMeter,
    status::count,
    thread::Alive,
};

/// A question to the log, and who asks.
pub(crate) struct Question {
    pub(crate) group: GroupId,
    pub(crate) load: Load,
    pub(crate) port: Arc<dyn Port>,
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
        for Question { group, load, port } in questions.drain(..) {
            count(&port.counters().loads, 1);
            let begun = Instant::now();
            let why = match catch_unwind(AssertUnwindSafe(|| self.reader.load(group, &load))) {
                Ok(Ok(result)) => {
                    self.meter.loaded(begun.elapsed());
                    port.input(Input::Loaded { id: load.id, result });
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

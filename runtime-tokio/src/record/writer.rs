//! The recorder's thread: brings to the disk what waits.

use std::{io, sync::Arc};

use quorate_core::recording::Head;

use super::{
    Recording, RecordingEnded,
    folder::Folder,
    queue::{Taken, Tape},
};
use crate::thread::{Alive, spawn};

/// Starts the thread. Whatever fails ends the recording, and nothing else.
pub(super) fn start(recording: Recording, head: Head, tape: &Arc<Tape>, alive: &Alive) {
    let node = head.node;
    let run = {
        let tape = tape.clone();
        move || {
            let why = match write(recording, &head, &tape) {
                Ok(()) => RecordingEnded::Stopped,
                Err(error) => RecordingEnded::Failed { why: error.to_string().into() },
            };
            tape.end(node, why);
        }
    };
    if let Err(error) = spawn(node, "record", alive, run) {
        tape.end(node, RecordingEnded::Failed { why: error.to_string().into() });
    }
}

fn write(recording: Recording, head: &Head, tape: &Tape) -> io::Result<()> {
    let Recording { dir, max_bytes, put, .. } = recording;
    let mut folder = Folder::open(&dir, head, max_bytes, put)?;
    let mut buffer = Vec::new();
    loop {
        let Taken { notes, begins, dumps, over } = tape.take(buffer);
        let mut from = 0;
        for begin in begins {
            folder.add(&notes[from..begin])?;
            folder.begin()?;
            from = begin;
        }
        folder.add(&notes[from..])?;
        {
            let status = &mut tape.lock().status;
            (status.bytes, status.on_disk, status.segments) = folder.sizes();
        }
        for dump in dumps {
            let _gone = dump.answer.send(folder.dump(dump.dir));
        }
        if let Some(over) = over {
            return if over.keep { folder.keep() } else { Ok(()) };
        }
        buffer = notes;
    }
}

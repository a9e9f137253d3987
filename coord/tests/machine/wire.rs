//! Commands and replies as bytes.

use bytes::Bytes;
use prost::Message as _;
use quorate_coord::{
    machine::{Command, FORMAT, KvError, MAX_TXN_DEPTH, Machine, Reply, ReplyError, Response, check_txn},
    pb::{
        command,
        etcdserverpb::{CompactionRequest, PutRequest},
    },
};
use quorate_core::{Entry, EntryKind, Index, LogId, StateMachine as _, Term};

use crate::support::{all, delete, get, op, put, txn};

fn entry(payload: impl Into<Bytes>) -> Entry {
    Entry { id: LogId::new(Term(1), Index(1)), kind: EntryKind::Command, payload: payload.into() }
}

fn commands() -> Vec<Command> {
    vec![
        Command::Put(PutRequest { prev_kv: true, ..put("a", "1") }),
        Command::Put(PutRequest { prev_kv: true, ..put("a", "2") }),
        Command::Txn(txn([op(put("b", "1")), op(all()), op(txn([op(get("a"))]))])),
        Command::DeleteRange(delete("a", "b")),
        Command::Compact(CompactionRequest { revision: 3, physical: true }),
        Command::Compact(CompactionRequest { revision: 2, physical: false }),
        Command::Compact(CompactionRequest { revision: 99, physical: false }),
        Command::Put(PutRequest { ignore_value: true, ..put("x", "") }),
        Command::Put(PutRequest { lease: 3, ..put("x", "") }),
    ]
}

#[test]
fn commands_and_replies_survive_the_wire() {
    let (mut direct, mut wired) = (Machine::new(), Machine::new());
    for command in commands() {
        let payload = command.clone().encode();
        assert_eq!(Command::decode(payload.clone()).unwrap(), command);
        let reply = wired.apply(&entry(payload));
        assert_eq!(reply, direct.apply_command(command));
        assert_eq!(Reply::try_from(Bytes::from(reply.clone())), Ok(reply));
    }
    assert_eq!(wired.digest(), direct.digest());
}

#[test]
fn what_is_no_command_gets_an_error_and_changes_nothing() {
    let other = |version, op| command::Command { version, op }.encode_to_vec();
    let a_put = Some(command::command::Op::Put(put("a", "1")));
    let mut cases = vec![
        (vec![], "format 0"),
        (vec![0xff; 5], "is no command"),
        (b"not protobuf".to_vec(), "is no command"),
        (other(FORMAT + 1, a_put.clone()), "format 2 can't be applied; this version knows 1"),
        (other(0, a_put.clone()), "format 0"),
        (other(FORMAT, None), "of no kind"),
    ];
    // A kind from the future: field 15, a message.
    let mut future = other(FORMAT, None);
    future.extend([(15 << 3) | 2, 0]);
    cases.push((future, "of no kind"));
    let truncated = other(FORMAT, a_put);
    cases.push((truncated[..truncated.len() - 1].to_vec(), "is no command"));

    let mut machine = Machine::new();
    machine.apply_command(Command::Put(put("k", "v")));
    let before = machine.clone();
    for (payload, words) in cases {
        let reply = machine.apply(&entry(payload.clone()));
        let Err(KvError::BadCommand(text)) = &reply.result else { panic!("{payload:?}: {reply:?}") };
        assert!(text.contains(words), "{payload:?}: {text}");
        assert_eq!(reply.revision, 2);
        assert_eq!(machine, before);
        assert_eq!(Reply::try_from(Bytes::from(reply.clone())), Ok(reply));
    }
}

#[test]
fn a_reply_that_can_not_be_read_says_why() {
    let reply = command::CommandReply { version: FORMAT, result: None, revision: 1 };
    let decode = |reply: &command::CommandReply| Reply::try_from(Bytes::from(reply.encode_to_vec()));
    assert_eq!(decode(&reply), Err(ReplyError::Empty));
    assert_eq!(decode(&command::CommandReply { version: 2, ..reply }), Err(ReplyError::Format(2)));
    assert!(matches!(Reply::try_from(Bytes::from_static(b"\xff")), Err(ReplyError::Decode(_))));
}

#[test]
fn the_deepest_transaction_survives_the_wire() {
    let mut deepest = txn([op(PutRequest { prev_kv: true, ..put("a", "2") }), op(all())]);
    for _ in 1..MAX_TXN_DEPTH {
        deepest = txn([op(deepest)]);
    }
    check_txn(&deepest).unwrap();
    let mut machine = Machine::new();
    machine.apply_command(Command::Put(put("a", "1")));
    let reply = machine.apply(&entry(Command::Txn(deepest).encode()));
    assert!(matches!(reply.result, Ok(Response::Txn(_))), "{reply:?}");
    assert_eq!(Reply::try_from(Bytes::from(reply.clone())), Ok(reply));
}

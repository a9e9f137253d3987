//! `put`, `get`, `del` and `txn`.

use std::{ffi::OsString, io::Read as _, os::unix::ffi::OsStringExt as _};

use quorate_coord::pb::etcdserverpb::kv_client::KvClient;

use super::{
    Common,
    endpoints::Kind,
    output::{self, Show},
    requests::{Del, Get, Put},
    txn,
};
use crate::cli::{Failure, Result};

/// The biggest message either way, in bytes: etcd's servers take 1.5 MiB, and answer with as much as was asked for.
const MAX_ANSWER: usize = 256 << 20;

/// The biggest input that is read from stdin, in bytes; no server takes as much.
const MAX_INPUT: u64 = 64 << 20;

const PUT: &str = "\
Examples:
  quorate put greeting hello
  quorate put config - < config.json       the value is all that stdin holds
  quorate put --prev greeting goodbye      and shows what was there before
  quorate put -- --odd --value             after -- nothing is an option";

const GET: &str = "\
Prints the key on one line and its value on the next; nothing if there is none.
In JSON, what is not UTF-8 comes in hexadecimal, as key_hex and value_hex.

Examples:
  quorate get greeting
  quorate get user/ --prefix --limit 10
  quorate get a c                          from a up to, but not including, c
  quorate get '' --prefix --count-only     how many keys there are
  quorate get greeting --rev 7             as it was at revision 7
  quorate get greeting --serializable      what the node has; it may be stale
  quorate get greeting --json | jq -r '.kvs[0].value'";

const DEL: &str = "\
Prints how many keys were deleted.

Examples:
  quorate del greeting
  quorate del user/ --prefix
  quorate del --prev greeting              and shows what was there";

const TXN: &str = "\
Reads from stdin: comparisons, a blank line, the operations if all of them hold,
a blank line, the operations if not.
A comparison is value, version, create, mod or lease of (\"KEY\"), then one of
= != < >, then what to compare with. An operation is put, get or del, with the
options that it has on the command line. Words with blanks stand in '...' or in
\"...\", which knows \\\" \\\\ \\n \\t \\xNN. A line that begins with # is a comment.

Examples:
  quorate txn <<'END'                      take a lock if nobody has it, else show who
  version(\"lock\") = 0

  put lock me

  get lock
  END
  printf '\\nput a 1\\nput b 2\\n' | quorate txn    two keys at once";

/// `quorate put`.
#[derive(Debug, clap::Args)]
#[command(after_help = PUT)]
pub(crate) struct PutCommand {
    #[command(flatten)]
    put: Put,
    #[command(flatten)]
    common: Common,
}

/// `quorate get`.
#[derive(Debug, clap::Args)]
#[command(after_help = GET)]
pub(crate) struct GetCommand {
    #[command(flatten)]
    get: Get,
    /// Print only values
    #[arg(long, conflicts_with_all = ["keys_only", "count_only", "json"])]
    value_only: bool,
    #[command(flatten)]
    common: Common,
}

/// `quorate del`.
#[derive(Debug, clap::Args)]
#[command(after_help = DEL)]
pub(crate) struct DelCommand {
    #[command(flatten)]
    del: Del,
    #[command(flatten)]
    common: Common,
}

/// `quorate txn`.
#[derive(Debug, clap::Args)]
#[command(after_help = TXN)]
pub(crate) struct TxnCommand {
    #[command(flatten)]
    common: Common,
}

impl PutCommand {
    /// Writes the key.
    pub(crate) async fn run(self) -> Result {
        let Self { mut put, common } = self;
        if put.value == "-" {
            put.value = OsString::from_vec(stdin()?);
        }
        let answer = common
            .endpoints
            .ask(Kind::Write, common.timeout, &put.request(), |channel, request| async move {
                KvClient::new(channel).put(request).await
            })
            .await?;
        if common.json {
            return output::print_json(&output::put_json(&answer));
        }
        let mut text = Vec::new();
        output::write_put(&mut text, &answer);
        output::print(&text)
    }
}

impl GetCommand {
    /// Reads the keys.
    pub(crate) async fn run(self) -> Result {
        let Self { get, value_only, common } = self;
        let show = match (value_only, get.keys_only, get.count_only) {
            (true, _, _) => Show::Values,
            (_, _, true) => Show::Count,
            (_, true, _) => Show::Keys,
            (false, false, false) => Show::Both,
        };
        let answer = common
            .endpoints
            .ask(Kind::Read, common.timeout, &get.request(), |channel, request| async move {
                KvClient::new(channel).max_decoding_message_size(MAX_ANSWER).range(request).await
            })
            .await?;
        if common.json {
            return output::print_json(&output::range_json(&answer));
        }
        let mut text = Vec::new();
        if show == Show::Count {
            text.extend_from_slice(format!("{}\n", answer.count).as_bytes());
        } else {
            output::write_kvs(&mut text, &answer.kvs, show);
        }
        output::print(&text)
    }
}

impl DelCommand {
    /// Deletes the keys.
    pub(crate) async fn run(self) -> Result {
        let Self { del, common } = self;
        let answer = common
            .endpoints
            .ask(Kind::Write, common.timeout, &del.request(), |channel, request| async move {
                KvClient::new(channel).max_decoding_message_size(MAX_ANSWER).delete_range(request).await
            })
            .await?;
        if common.json {
            return output::print_json(&output::deleted_json(&answer));
        }
        let mut text = Vec::new();
        output::write_deleted(&mut text, &answer);
        output::print(&text)
    }
}

impl TxnCommand {
    /// Does the transaction that stdin holds.
    pub(crate) async fn run(self) -> Result {
        let Self { common } = self;
        let text = String::from_utf8(stdin()?).map_err(|_| Failure::new("the transaction is not UTF-8"))?;
        let request = txn::parse(&text).map_err(|error| Failure::new(format!("the transaction, {error}")))?;
        let answer = common
            .endpoints
            .ask(Kind::Write, common.timeout, &request, |channel, request| async move {
                KvClient::new(channel).max_decoding_message_size(MAX_ANSWER).txn(request).await
            })
            .await?;
        if common.json {
            return output::print_json(&output::txn_json(&answer));
        }
        let mut text = Vec::new();
        output::write_txn(&mut text, &answer);
        output::print(&text)
    }
}

/// All of stdin.
fn stdin() -> Result<Vec<u8>> {
    let mut input = Vec::new();
    match std::io::stdin().lock().take(MAX_INPUT + 1).read_to_end(&mut input) {
        Ok(_) if input.len() as u64 > MAX_INPUT => {
            Err(Failure::new(format!("more than {} MiB on stdin", MAX_INPUT >> 20)))
        }
        Ok(_) => Ok(input),
        Err(error) => Err(Failure::new(format!("can't read stdin: {error}"))),
    }
}

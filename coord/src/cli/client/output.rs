//! What is printed: plain lines for people, one JSON object on one line for programs.

use std::io::{self, Write};

use bytes::Bytes;
use quorate_coord::pb::{
    etcdserverpb::{
        DeleteRangeResponse, PutResponse, RangeResponse, ResponseHeader, ResponseOp, TxnResponse,
        response_op::Response,
    },
    mvccpb::KeyValue,
};
use serde_json::{Map, Value, json};

use super::super::{Failure, Result};

/// Which parts of a key are shown to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// The key on one line, its value on the next.
    Both,
    /// Only keys.
    Keys,
    /// Only values.
    Values,
    /// Only how many there are.
    Count,
}

/// Writes all of it to stdout.
///
/// # Errors
/// If it can't be written. A reader that went away (`| head`) is none.
pub(crate) fn print(text: &[u8]) -> Result {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("can't write to stdout: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Prints one JSON value on one line.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_json(value: &Value) -> Result {
    print(format!("{value}\n").as_bytes())
}

/// Columns as wide as their widest cell. The first row is the heading.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Keys, for people.
pub(crate) fn write_kvs(out: &mut Vec<u8>, kvs: &[KeyValue], show: Show) {
    for kv in kvs {
        if show != Show::Values {
            out.extend_from_slice(&kv.key);
            out.push(b'\n');
        }
        if show != Show::Keys {
            out.extend_from_slice(&kv.value);
            out.push(b'\n');
        }
    }
}

/// A transaction's answer, for people.
pub(crate) fn write_txn(out: &mut Vec<u8>, answer: &TxnResponse) {
    out.extend_from_slice(if answer.succeeded { b"SUCCESS\n" } else { b"FAILURE\n" });
    for ResponseOp { response } in &answer.responses {
        out.push(b'\n');
        match response {
            Some(Response::ResponseRange(range)) => write_kvs(out, &range.kvs, Show::Both),
            Some(Response::ResponsePut(put)) => write_put(out, put),
            Some(Response::ResponseDeleteRange(deleted)) => write_deleted(out, deleted),
            Some(Response::ResponseTxn(txn)) => write_txn(out, txn),
            None => {}
        }
    }
}

/// A put's answer, for people.
pub(crate) fn write_put(out: &mut Vec<u8>, answer: &PutResponse) {
    out.extend_from_slice(b"OK\n");
    write_kvs(out, answer.prev_kv.as_slice(), Show::Both);
}

/// A deletion's answer, for people.
pub(crate) fn write_deleted(out: &mut Vec<u8>, answer: &DeleteRangeResponse) {
    out.extend_from_slice(format!("{}\n", answer.deleted).as_bytes());
    write_kvs(out, &answer.prev_kvs, Show::Both);
}

/// A read's answer, as JSON.
pub(crate) fn range_json(answer: &RangeResponse) -> Value {
    json!({
        "header": header_json(answer.header.as_ref()),
        "kvs": answer.kvs.iter().map(kv_json).collect::<Vec<_>>(),
        "count": answer.count,
        "more": answer.more,
    })
}

/// A put's answer, as JSON.
pub(crate) fn put_json(answer: &PutResponse) -> Value {
    json!({ "header": header_json(answer.header.as_ref()), "prev_kv": answer.prev_kv.as_ref().map(kv_json) })
}

/// A deletion's answer, as JSON.
pub(crate) fn deleted_json(answer: &DeleteRangeResponse) -> Value {
    json!({
        "header": header_json(answer.header.as_ref()),
        "deleted": answer.deleted,
        "prev_kvs": answer.prev_kvs.iter().map(kv_json).collect::<Vec<_>>(),
    })
}

/// A transaction's answer, as JSON.
pub(crate) fn txn_json(answer: &TxnResponse) -> Value {
    let responses = answer.responses.iter().map(|ResponseOp { response }| match response {
        Some(Response::ResponseRange(range)) => json!({ "get": range_json(range) }),
        Some(Response::ResponsePut(put)) => json!({ "put": put_json(put) }),
        Some(Response::ResponseDeleteRange(deleted)) => json!({ "del": deleted_json(deleted) }),
        Some(Response::ResponseTxn(txn)) => json!({ "txn": txn_json(txn) }),
        None => Value::Null,
    });
    json!({
        "header": header_json(answer.header.as_ref()),
        "succeeded": answer.succeeded,
        "responses": responses.collect::<Vec<_>>(),
    })
}

/// Who answered, and when. Ids are strings: not every JSON reader has whole numbers of 64 bits.
pub(crate) fn header_json(header: Option<&ResponseHeader>) -> Value {
    header.map_or(Value::Null, |header| {
        json!({
            "cluster_id": format!("{:016x}", header.cluster_id),
            "member_id": header.member_id.to_string(),
            "revision": header.revision,
            "raft_term": header.raft_term,
        })
    })
}

/// A key. Bytes that are not UTF-8 come in hexadecimal, as `key_hex` and `value_hex`.
fn kv_json(kv: &KeyValue) -> Value {
    let mut fields = Map::new();
    for (name, bytes) in [("key", &kv.key), ("value", &kv.value)] {
        let (name, text) = bytes_json(name, bytes);
        fields.insert(name, text.into());
    }
    fields.insert("create_revision".to_owned(), kv.create_revision.into());
    fields.insert("mod_revision".to_owned(), kv.mod_revision.into());
    fields.insert("version".to_owned(), kv.version.into());
    if kv.lease != 0 {
        fields.insert("lease".to_owned(), kv.lease.into());
    }
    fields.into()
}

fn bytes_json(name: &str, bytes: &Bytes) -> (String, String) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (name.to_owned(), text.to_owned()),
        Err(_) => (format!("{name}_hex"), bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &'static [u8], value: &'static [u8]) -> KeyValue {
        KeyValue { key: key.into(), value: value.into(), mod_revision: 3, ..KeyValue::default() }
    }

    #[test]
    fn a_table_is_aligned_and_has_no_trailing_blanks() {
        let rows = [["id", "state"], ["10", "ok"], ["1", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "id  state\n10  ok\n1\n");
    }

    #[test]
    fn binary_keys_and_values_are_told_apart_from_text() {
        let shown = kv_json(&kv(b"k\xFF", b"text"));
        assert_eq!(shown["key_hex"], "6bff");
        assert_eq!(shown["value"], "text");
        assert!(shown.get("key").is_none());
    }

    #[test]
    fn a_transaction_is_shown_operation_by_operation() {
        let range = RangeResponse { kvs: vec![kv(b"a", b"1")], count: 1, ..RangeResponse::default() };
        let deleted = DeleteRangeResponse { deleted: 2, ..DeleteRangeResponse::default() };
        let responses = [Response::ResponseRange(range), Response::ResponseDeleteRange(deleted)];
        let responses = responses.map(|response| ResponseOp { response: Some(response) }).into();
        let answer = TxnResponse { succeeded: true, responses, ..TxnResponse::default() };
        let mut text = Vec::new();
        write_txn(&mut text, &answer);
        assert_eq!(text, b"SUCCESS\n\na\n1\n\n2\n");
        let shown = txn_json(&answer);
        assert_eq!(shown["responses"][0]["get"]["kvs"][0]["value"], "1");
        assert_eq!(shown["responses"][1]["del"]["deleted"], 2);
    }
}

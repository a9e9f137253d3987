//! The small language of `quorate txn`: etcdctl's.
//!
//! Comparisons, a blank line, operations if all of them hold, a blank line, operations if not.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

use bytes::Bytes;
use clap::Parser;
use quorate_coord::pb::etcdserverpb::{
    Compare, RequestOp, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
};

use super::{
    requests::{Del, Get, Put},
    text::words,
};

/// Parses a transaction.
///
/// # Errors
/// Says the line, and what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<TxnRequest, String> {
    let mut txn = TxnRequest::default();
    let mut section = 0;
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        let at = |error| format!("line {}: {error}", n + 1);
        if line.starts_with('#') {
            continue;
        }
        match (section, line) {
            (0 | 1, "") => section += 1,
            (_, "") => {}
            (0, _) => txn.compare.push(comparison(line).map_err(at)?),
            (1, _) => txn.success.push(operation(line).map_err(at)?),
            (_, _) => txn.failure.push(operation(line).map_err(at)?),
        }
    }
    if txn.success.is_empty() && txn.failure.is_empty() {
        return Err("there is no operation: comparisons, a blank line, operations, a blank line, operations"
            .to_owned());
    }
    Ok(txn)
}

/// `value("key") = "text"`.
fn comparison(line: &str) -> Result<Compare, String> {
    let form = || "a comparison looks like: value(\"key\") = \"text\", or mod(\"key\") > 0".to_owned();
    let (target, rest) = line.split_once('(').ok_or_else(form)?;
    let (key, rest) = argument(rest)?;
    let rest = rest.trim_start();
    let (result, rest) = [
        ("!=", CompareResult::NotEqual),
        ("=", CompareResult::Equal),
        ("<", CompareResult::Less),
        (">", CompareResult::Greater),
    ]
    .iter()
    .find_map(|(sign, result)| Some((*result, rest.strip_prefix(sign)?)))
    .ok_or_else(|| "after the key comes one of = != < >".to_owned())?;
    let [operand] = <[Vec<u8>; 1]>::try_from(words(rest)?).map_err(|_| form())?;
    let number = || -> Result<i64, String> {
        let text = String::from_utf8_lossy(&operand);
        text.parse().map_err(|_| format!("\"{text}\" is not a whole number"))
    };
    let (target, target_union) = match target.trim() {
        "value" | "val" => (CompareTarget::Value, TargetUnion::Value(operand.into())),
        "version" | "ver" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        "create" | "c" => (CompareTarget::Create, TargetUnion::CreateRevision(number()?)),
        "mod" | "m" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number()?)),
        other => {
            return Err(format!("\"{other}\" can't be compared; value, version, create, mod and lease can"));
        }
    };
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key,
        target_union: Some(target_union),
        range_end: Bytes::new(),
    })
}

/// The key up to the `)`, which may stand in quotes, and what follows.
fn argument(text: &str) -> Result<(Bytes, &str), String> {
    // A `)` within quotes doesn't end it: the first one before which all is well is the one.
    let mut error = "the ) is missing".to_owned();
    for (at, _) in text.match_indices(')') {
        match words(&text[..at]).map(<[Vec<u8>; 1]>::try_from) {
            Ok(Ok([key])) => return Ok((key.into(), &text[at + 1..])),
            Ok(Err(_)) => return Err("between ( and ) stands one key".to_owned()),
            Err(why) => error = why,
        }
    }
    Err(error)
}

/// An operation, with the options that it has on the command line.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true)]
enum Operation {
    Put(Put),
    Get(Get),
    Del(Del),
}

fn operation(line: &str) -> Result<RequestOp, String> {
    let words = words(line)?.into_iter().map(OsString::from_vec);
    let parsed = Operation::try_parse_from(words).map_err(|error| {
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default();
        format!("{} (put, get and del are known)", first.trim_start_matches("error: "))
    })?;
    let request = match parsed {
        Operation::Put(put) => Request::RequestPut(put.request()),
        Operation::Get(get) => Request::RequestRange(get.request()),
        Operation::Del(del) => Request::RequestDeleteRange(del.request()),
    };
    Ok(RequestOp { request: Some(request) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_then_success_then_failure() {
        let txn = parse(
            "# a comment\nvalue(\"k (1)\") != \"old value\"\nmod(k2) > \"0\"\nver(k3)=1\n\n\
             put k 'new value'\nget k --prefix --limit 3\n\ndel k --prev\n\n",
        )
        .unwrap();
        assert_eq!((txn.compare.len(), txn.success.len(), txn.failure.len()), (3, 2, 1));
        let [first, second, third] = &txn.compare[..] else { unreachable!() };
        assert_eq!((&first.key[..], first.result()), (&b"k (1)"[..], CompareResult::NotEqual));
        assert_eq!(first.target_union, Some(TargetUnion::Value("old value".into())));
        assert_eq!((second.target(), second.result()), (CompareTarget::Mod, CompareResult::Greater));
        assert_eq!(third.target_union, Some(TargetUnion::Version(1)));
        let Some(Request::RequestPut(put)) = &txn.success[0].request else { panic!("{:?}", txn.success[0]) };
        assert_eq!((&put.key[..], &put.value[..]), (&b"k"[..], &b"new value"[..]));
        let Some(Request::RequestRange(get)) = &txn.success[1].request else {
            panic!("{:?}", txn.success[1])
        };
        assert_eq!((&get.range_end[..], get.limit), (&b"l"[..], 3));
        let Some(Request::RequestDeleteRange(del)) = &txn.failure[0].request else {
            panic!("{:?}", txn.failure[0])
        };
        assert!(del.prev_kv);
    }

    #[test]
    fn no_comparisons_and_no_failure_are_fine() {
        let txn = parse("\nput a -1").unwrap();
        assert_eq!((txn.compare.len(), txn.success.len(), txn.failure.len()), (0, 1, 0));
        let txn = parse("ver(a) = 0\n\n\nput a 1").unwrap();
        assert_eq!((txn.compare.len(), txn.success.len(), txn.failure.len()), (1, 0, 1));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, expected) in [
            ("put a 1", "line 1: a comparison looks like"),
            ("age(\"a\") = 1", "line 1: \"age\" can't be compared"),
            ("mod(\"a\") = x", "line 1: \"x\" is not a whole number"),
            ("mod(\"a\") ~ 1", "line 1: after the key comes one of"),
            ("mod(\"a\" = 1", "line 1: the ) is missing"),
            ("mod(a b) = 1", "line 1: between ( and ) stands one key"),
            ("mod(a) = 1 2", "line 1: a comparison looks like"),
            ("\nput a", "line 2: the following required arguments"),
            ("\nmove a b", "line 2: unrecognized subcommand 'move'"),
            ("\nput a \"b", "line 2: a \" is not closed"),
            ("mod(a) = 1\n\n", "there is no operation"),
            ("", "there is no operation"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(expected) && !error.contains('\n'), "{text:?}: {error}");
        }
    }
}

//! The words of a command: values in order, and `name=value` anywhere.

use std::{collections::VecDeque, str::FromStr};

#[derive(Debug)]
pub struct Args {
    values: VecDeque<String>,
    named: Vec<(String, String)>,
}

impl Args {
    /// The command's name, and its arguments.
    pub fn parse(command: &str) -> (String, Self) {
        let mut args = Self { values: VecDeque::new(), named: Vec::new() };
        for word in command.split_whitespace() {
            match word.split_once('=') {
                Some((name, value)) => args.named.push((name.to_owned(), value.to_owned())),
                None => args.values.push_back(word.to_owned()),
            }
        }
        (args.values.pop_front().unwrap_or_default(), args)
    }

    /// The next value, if there is one.
    pub fn next(&mut self) -> Option<String> {
        self.values.pop_front()
    }

    /// Is this word among the values? It is taken out.
    pub fn flag(&mut self, word: &str) -> bool {
        let before = self.values.len();
        self.values.retain(|value| value != word);
        self.values.len() < before
    }

    /// Are there no values left?
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All values that are left.
    pub fn rest(&mut self) -> Vec<String> {
        self.values.drain(..).collect()
    }

    /// The next value, a number.
    pub fn number(&mut self) -> Result<u64, String> {
        parse(&self.next().ok_or("a number is missing")?)
    }

    /// The value of `name`, if it is given.
    pub fn named(&mut self, name: &str) -> Option<String> {
        let at = self.named.iter().position(|(other, _)| other == name)?;
        Some(self.named.remove(at).1)
    }

    /// The value of `name`, a number.
    pub fn named_number<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, String> {
        self.named(name).map(|value| parse(&value)).transpose()
    }

    /// The value of `name`, `on` or `off`.
    pub fn named_switch(&mut self, name: &str) -> Result<Option<bool>, String> {
        match self.named(name).as_deref() {
            None => Ok(None),
            Some("on") => Ok(Some(true)),
            Some("off") => Ok(Some(false)),
            Some(other) => Err(format!("{name} is on or off, not {other}")),
        }
    }

    /// The value of `name`, numbers with commas between them.
    pub fn named_list(&mut self, name: &str) -> Result<Option<Vec<u64>>, String> {
        self.named(name).map(|value| list(&value)).transpose()
    }

    /// Everything named that is left, in order.
    pub fn rest_named(&mut self) -> Vec<(String, String)> {
        self.named.drain(..).collect()
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<(), String> {
        let named = self.named.into_iter().map(|(name, value)| format!("{name}={value}"));
        let left: Vec<String> = self.values.into_iter().chain(named).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("left over: {}", left.join(" "))) }
    }
}

pub fn parse<T: FromStr>(value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("no number: {value}"))
}

pub fn list(value: &str) -> Result<Vec<u64>, String> {
    value.split(',').map(parse).collect()
}

/// `100ms` or `2s`, in µs.
pub fn duration(value: &str) -> Result<u64, String> {
    let units = [("us", 1), ("ms", 1000), ("s", 1_000_000)];
    let found = units.iter().find_map(|(unit, us)| {
        let number: u64 = value.strip_suffix(unit)?.parse().ok()?;
        Some(number * us)
    });
    found.ok_or_else(|| format!("no duration: {value}"))
}

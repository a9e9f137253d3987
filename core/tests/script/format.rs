//! The form of a script: a comment that says what to look for; then commands, each a line that begins with `> `, and
//! right below it what is expected, up to an empty line, a comment or the next command.

use super::commands::Session;

/// How a script did.
#[derive(PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It says what is expected.
    Same,
    /// It says something else: this, with the same commands and comments.
    Rewritten(String),
}

/// Runs a script. With `update`, what differs is no complaint, but the outcome.
///
/// # Errors
/// What is wrong, on which line.
pub fn check(text: &str, update: bool) -> Result<Outcome, String> {
    let pieces = parse(text)?;
    let mut session = Session::default();
    let (mut new, mut complaints) = (String::new(), Vec::new());
    let mut crowded = false;
    for piece in &pieces {
        match piece {
            Piece::Prose(line) => {
                push(&mut new, line);
                crowded = false;
            }
            Piece::Command { line, command, expected } => {
                let said = session.run(command).map_err(|error| format!("line {line}: {error}"))?;
                if crowded {
                    push(&mut new, "");
                }
                crowded = said.len() > 1;
                push(&mut new, &format!("> {command}"));
                said.iter().for_each(|said| push(&mut new, said));
                if expected.is_empty() && !update {
                    complaints.push(format!("line {line}: nothing is expected of: {command}"));
                } else if said != *expected {
                    complaints.push(format!("line {line}: {command}\n{}", difference(expected, &said)));
                }
            }
        }
    }
    match (complaints.is_empty(), update) {
        (false, false) => Err(complaints.into_iter().take(3).collect::<Vec<_>>().join("\n")),
        (_, true) if new != text => Ok(Outcome::Rewritten(new)),
        _ => Ok(Outcome::Same),
    }
}

enum Piece {
    /// A comment or an empty line.
    Prose(String),
    Command {
        line: usize,
        command: String,
        expected: Vec<String>,
    },
}

fn parse(text: &str) -> Result<Vec<Piece>, String> {
    if !text.starts_with("# ") {
        return Err("a script begins with a comment that says what is to be seen in it".into());
    }
    let mut pieces = Vec::new();
    let mut in_output = false;
    for (at, line) in text.lines().enumerate() {
        if let Some(command) = line.strip_prefix("> ") {
            let command = command.trim().to_owned();
            pieces.push(Piece::Command { line: at + 1, command, expected: Vec::new() });
            in_output = true;
        } else if line.is_empty() || line.starts_with('#') {
            pieces.push(Piece::Prose(line.to_owned()));
            in_output = false;
        } else if let (true, Some(Piece::Command { expected, .. })) = (in_output, pieces.last_mut()) {
            expected.push(line.to_owned());
        } else {
            return Err(format!("line {}: expected, but of no command: {line}", at + 1));
        }
    }
    if !pieces.iter().any(|piece| matches!(piece, Piece::Command { .. })) {
        return Err("there is no command in it".into());
    }
    Ok(pieces)
}

fn push(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// The lines in which the two differ, and one on each side.
fn difference(expected: &[String], said: &[String]) -> String {
    let same =
        |pairs: &mut dyn Iterator<Item = (&String, &String)>| pairs.take_while(|(a, b)| a == b).count();
    let before = same(&mut expected.iter().zip(said));
    let shorter = expected.len().min(said.len()) - before;
    let after = same(&mut expected.iter().rev().zip(said.iter().rev())).min(shorter);
    let context = expected.get(before.wrapping_sub(1)).map(|line| format!("    {line}\n"));
    let gone = expected[before..expected.len() - after].iter().map(|line| format!("  - {line}\n"));
    let come = said[before..said.len() - after].iter().map(|line| format!("  + {line}\n"));
    context.into_iter().chain(gone).chain(come).collect()
}

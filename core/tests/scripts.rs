//! Golden scripts: whole conversations of nodes, in words that can be held against the paper.
//!
//! Each file in `scripts/` is a list of commands (`> propose 1 x`), each with all that follows from it right below: every
//! message, write, hand-out, answer and event. The words are compared exactly. After a change that is meant,
//! `UPDATE_SCRIPTS=1 cargo test -p quorate-core --test scripts` writes them anew, and the diff is the review. `SCRIPT=name`
//! runs those alone whose name has that in it.
//!
//! What the commands are is told in `script/commands.rs`; how to read what they say, in `script/show.rs`.

mod common;
#[allow(unreachable_pub, reason = "nothing here is public")]
mod script;

use std::{
    fs,
    path::{Path, PathBuf},
};

use script::{Outcome, check};

#[test]
fn the_scripts_say_what_they_said_when_they_were_read() {
    let update = std::env::var_os("UPDATE_SCRIPTS").is_some();
    let only = std::env::var("SCRIPT").unwrap_or_default();
    let mut complaints = Vec::new();
    for path in files() {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if !name.contains(&only) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        match check(&text, update) {
            Ok(Outcome::Same) => {}
            Ok(Outcome::Rewritten(new)) => {
                fs::write(&path, new).unwrap();
                eprintln!("{name}: rewritten; read the diff");
            }
            Err(complaint) => complaints.push(format!("{name}.script: {complaint}")),
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let other = files.iter().find(|file| file.extension().is_none_or(|end| end != "script"));
    assert_eq!(other, None, "only scripts live here");
    assert!(files.len() > 40, "where are the scripts?");
    files
}

fn complaint(text: &str) -> String {
    check(text, false).unwrap_err()
}

#[test]
fn a_script_that_is_as_it_should_be_passes_and_is_left_alone() {
    let text = "# A node that has nothing.\n\n> nodes 1\nok\n\n> log 1\nn1 [] durable 0 commit 0\n";
    assert_eq!(check(text, false), Ok(Outcome::Same));
    assert_eq!(check(text, true), Ok(Outcome::Same));
}

#[test]
fn other_words_than_expected_are_shown_beside_what_was_expected() {
    let said = complaint("# Text.\n> nodes 1\nok\n> log 1\nn1 [1@T1] durable 0 commit 0\n");
    assert!(said.contains("line 4: log 1"), "{said}");
    assert!(said.contains("- n1 [1@T1] durable 0") && said.contains("+ n1 [] durable 0"), "{said}");
}

#[test]
fn an_update_keeps_comments_and_commands_and_replaces_the_rest() {
    let text = "# Text.\n> nodes 1\nwrong\nwrong too\n# More.\n\n> log 1\n";
    let new = "# Text.\n> nodes 1\nok\n# More.\n\n> log 1\nn1 [] durable 0 commit 0\n";
    assert_eq!(check(text, true), Ok(Outcome::Rewritten(new.into())));
}

#[test]
fn mistakes_in_a_script_are_found() {
    for (text, mistake) in [
        ("", "begins with a comment"),
        ("> nodes 1\nok\n", "begins with a comment"),
        ("# Text.\n", "no command"),
        ("# Text.\n> nodes 1\n", "line 2: nothing is expected"),
        ("# Text.\n> nodes 1\nok\n\nn1 stray\n", "line 5: expected, but of no command"),
        ("# Text.\n> dance 1\nok\n", "line 2: no such command: dance"),
        ("# Text.\n> nodes 1 colour=red\nok\n", "line 2: left over: colour=red"),
        ("# Text.\n> nodes 1\nok\n> tick 2\nok\n", "line 4: no node 2"),
        ("# Text.\n> nodes 1\nok\n> time soon\nok\n", "line 4: no duration: soon"),
    ] {
        let said = complaint(text);
        assert!(said.contains(mistake), "{text:?} said {said:?}");
        if mistake != "line 2: nothing is expected" {
            assert!(check(text, true).is_err(), "an update mends no mistake: {text:?}");
        }
    }
}

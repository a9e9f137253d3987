//! Runs that failed are written down, done again to the bit, and made shorter; and those that were kept stay clean.

use std::{fs, io::BufReader, path::Path};

use quorate_sim::{Options, Profile, Schedule, ScheduleError, Trace, run};

/// A seed of a profile in which something is to be found, and what was done in it.
fn failing(profile: Profile) -> Schedule {
    let options = |seed| Options { profile, ..Options::new(seed) };
    let seed = (0..400).find(|seed| run(&options(*seed)).is_err()).expect("something is found");
    Schedule::record(&options(seed)).expect("it is found again")
}

fn written(schedule: &Schedule) -> Vec<u8> {
    let mut bytes = Vec::new();
    schedule.write(&mut bytes).unwrap();
    bytes
}

#[test]
fn what_failed_is_done_again_to_the_bit_also_from_a_file() {
    let schedule = failing(Profile::Lies);
    let read = Schedule::read(written(&schedule).as_slice()).unwrap();
    assert_eq!(read, schedule);
    let replayed = read.replay(Trace::Off);
    assert!(replayed.same && replayed.to_the_bit, "{replayed:?}");
    assert_eq!(replayed.violation.as_ref(), schedule.violation());
}

#[test]
fn a_run_becomes_a_few_steps_that_break_the_same() {
    let schedule = failing(Profile::Stale);
    let mut told = 0;
    let shrunk = schedule.shrink(4000, &mut |progress| {
        told += 1;
        assert_eq!(progress.runs, told);
    });
    assert!(told > 0);
    assert!(shrunk.len() * 10 < schedule.len(), "{} became {}", schedule.len(), shrunk.len());
    assert!(shrunk.nodes() <= schedule.nodes());
    let replayed = shrunk.replay(Trace::Off);
    assert!(replayed.same && replayed.to_the_bit, "{replayed:?}");
    let invariant = |schedule: &Schedule| schedule.violation().map(|violation| violation.invariant);
    assert_eq!(invariant(&shrunk), invariant(&schedule));
    // And it is the least: without any of its steps, it breaks nothing.
    let text = String::from_utf8(written(&shrunk)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for left_out in 1..lines.len() {
        let kept: Vec<&str> = lines.iter().enumerate().filter(|(n, _)| *n != left_out).map(|(_, l)| *l).collect();
        let shorter = Schedule::read(kept.join("\n").as_bytes()).unwrap();
        assert!(!shorter.replay(Trace::Off).same, "line {} is not needed", left_out + 1);
    }
}

/// Each made of a run that broke a core with a bug in it, as its name says. The core without it must stay whole.
#[test]
fn schedules_that_were_kept_stay_clean() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schedules");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let schedule = Schedule::read(BufReader::new(fs::File::open(&path).unwrap())).unwrap();
        assert!(!schedule.is_empty());
        let replayed = schedule.replay(Trace::Off);
        assert_eq!(replayed.violation, None, "{}", path.display());
        count += 1;
    }
    assert!(count >= 4, "only {count} schedules");
}

#[test]
fn what_is_no_schedule_is_refused_with_the_line() {
    let text = String::from_utf8(written(&failing(Profile::Lies))).unwrap();
    let read = |text: &str| Schedule::read(text.as_bytes());
    assert!(matches!(read(""), Err(ScheduleError::NoSchedule)));
    assert!(matches!(read("hello\n"), Err(ScheduleError::NoSchedule)));
    assert!(matches!(read("{\"format\":\"something\",\"version\":1}"), Err(ScheduleError::NoSchedule)));
    let newer = text.replacen("\"version\":1", "\"version\":2", 1);
    assert!(matches!(read(&newer), Err(ScheduleError::Version { found: 2 })));
    // Comments and empty lines count, but are nothing.
    let broken = text.replacen('\n', "\n# a comment\n\n[0,{\"walk\":{}}]\n", 1);
    let error = read(&broken).unwrap_err();
    assert!(matches!(error, ScheduleError::Line { line: 4, .. }), "{error}");
    let impossible = text.replacen("\"slots\":", "\"slots\":0,\"was\":", 1);
    assert!(matches!(read(&impossible), Err(ScheduleError::Setup(_))));
}

/// Any part of a list is a run of its own: nothing in it may upset the laboratory.
#[test]
fn any_part_of_a_schedule_can_be_done() {
    let text = String::from_utf8(written(&failing(Profile::Lies))).unwrap();
    let (header, ops) = text.split_once('\n').unwrap();
    for keep in [2, 3, 5, 7] {
        let part: Vec<&str> = ops.lines().enumerate().filter(|(n, _)| n % keep != 0).map(|(_, op)| op).collect();
        let schedule = Schedule::read(format!("{header}\n{}", part.join("\n")).as_bytes()).unwrap();
        let broken = schedule.replay(Trace::Off).violation.map(|violation| violation.invariant);
        assert!(matches!(broken, None | Some("D3")), "{broken:?}");
    }
}

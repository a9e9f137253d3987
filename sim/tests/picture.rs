//! The page that shows a run: whole in itself, and true to it. What it does in a browser is tried by `.ci/picture`.

use quorate_sim::{Options, Profile, Schedule, Violation, run, run_pictured, run_pictured_within};
use serde_json::Value;

/// What the page was given to show.
fn data(page: &str) -> Value {
    let (_, rest) =
        page.split_once(r#"<script type="application/json" id="data">"#).expect("the page has data");
    let (data, _) = rest.split_once("</script>").expect("the data end");
    serde_json::from_str(data).expect("the data are JSON")
}

fn events(data: &Value) -> &[Value] {
    data["events"].as_array().expect("events are a list")
}

fn short(seed: u64) -> Options {
    Options { duration: Some(3_000_000), ..Options::new(seed) }
}

/// The first seed of the profile in which leases break, as they must.
fn a_violation() -> (Options, Violation, String) {
    (0..200)
        .map(|seed| Options { profile: Profile::Drift, ..Options::new(seed) })
        .find_map(|options| {
            run(&options).err()?;
            let (result, page) = run_pictured(&options);
            Some((options, result.expect_err("the same run ends the same"), page))
        })
        .expect("clocks that drift too far break a lease in some seed")
}

#[test]
fn a_page_needs_nothing_from_elsewhere() {
    let (_, page) = run_pictured(&short(5));
    for foreign in ["http:", "https:", "src=", "href=", "url(", "@import", "import(", "fetch(", "XMLHttp"] {
        assert!(!page.contains(foreign), "the page has {foreign:?}");
    }
    assert!(page.contains("default-src 'none'"), "and a browser is told to load nothing");
    assert!(!page.contains("{{"), "everything is filled in");
    assert_eq!(page.matches("</script>").count(), 2, "nothing in the data ends a script");
}

#[test]
fn it_shows_what_has_happened_and_changes_nothing() {
    let options = short(5);
    let (report, page) = run_pictured(&options);
    let report = report.unwrap();
    assert_eq!(report.digest, run(&options).unwrap().digest);
    let data = data(&page);
    let steps = events(&data).iter().filter(|event| event.get("c").is_some()).count() as u64;
    assert_eq!(steps, report.counts[quorate_sim::Count::Steps], "every step is there, and has a clock");
    assert_eq!(data["forgotten"], 0);
    assert!(data["violation"].is_null());
    let leads = |event: &&Value| event["l"].as_str().is_some_and(|label| label.contains("Leader of T"));
    let leader = events(&data).iter().find(leads).expect("somebody leads");
    assert_eq!(leader["x"]["r"], "L", "and its role changes in that event");
    // Each message taken up is one that was sent.
    let letters = data["letters"].as_array().unwrap();
    for event in events(&data).iter().filter(|event| event.get("m").is_some()) {
        let letter = letters.iter().find(|letter| letter["i"] == event["m"]).expect("its letter");
        assert_eq!(letter["o"], event["n"]);
        assert!(letter["s"].as_u64() <= event["t"].as_u64());
    }
}

#[test]
fn the_last_events_are_the_ones_it_keeps() {
    let (_, whole) = run_pictured(&short(5));
    let (_, part) = run_pictured_within(&short(5), 300);
    let (whole, part) = (data(&whole), data(&part));
    let left_out = events(&whole).len() - 300;
    assert_eq!(events(&part).len(), 300);
    assert_eq!(part["forgotten"], left_out);
    assert_eq!(events(&part), &events(&whole)[left_out..]);
    // What the nodes were before is what all that is left out has made of them.
    let mut before = whole["before"].clone();
    for event in &events(&whole)[..left_out] {
        let Some(slot) = event["n"].as_u64().and_then(|node| usize::try_from(node).ok()?.checked_sub(1))
        else {
            continue;
        };
        for (field, value) in event.get("x").and_then(Value::as_object).into_iter().flatten() {
            before[slot][field] = value.clone();
        }
    }
    assert_eq!(part["before"], before);
}

#[test]
fn a_violation_is_shown_and_explained() {
    let (options, violation, page) = a_violation();
    let data = data(&page);
    let shown = &data["violation"];
    assert_eq!(shown["invariant"], violation.invariant);
    assert_eq!(shown["what"], violation.what);
    assert_eq!(shown["at"], violation.at);
    assert_eq!(shown["seed"], options.seed);
    assert_eq!(shown["explained"]["id"], "R2");
    let last = events(&data).last().unwrap();
    assert_eq!(last["t"], violation.at, "the step that breaks it is the last one that is shown");
    assert!(page.len() < 10_000_000, "{} bytes", page.len());

    // What was written down of it shows the same end, whatever it leaves out.
    let (replayed, page) = Schedule::record(&options).expect("it fails").replay_pictured();
    assert_eq!(replayed.violation.as_ref(), Some(&violation));
    assert_eq!(self::data(&page)["violation"]["what"], violation.what);
}

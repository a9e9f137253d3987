//! The page: a template, its style and its script, and the recording as data.

use serde::Serialize;

use super::{
    explain::{Explained, explain},
    recorder::{Event, Letter, Recording},
    state::State,
};
use crate::Violation;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
/// In this order: each may use what those before it declare.
const SCRIPTS: &[&str] = &[
    include_str!("data.js"),
    include_str!("scene.js"),
    include_str!("diagram.js"),
    include_str!("logs.js"),
    include_str!("details.js"),
    include_str!("control.js"),
];

/// All that the page knows.
#[derive(Serialize)]
struct Data<'a> {
    title: &'a str,
    forgotten: u64,
    violation: Option<Broken<'a>>,
    before: &'a [State],
    events: Vec<&'a Event>,
    letters: Vec<&'a Letter>,
}

#[derive(Serialize)]
struct Broken<'a> {
    at: u64,
    invariant: &'a str,
    what: &'a str,
    seed: u64,
    explained: Explained,
}

/// The page that shows a recording, and what was wrong with the run, if anything.
pub(crate) fn page(recording: &Recording, violation: Option<&Violation>, title: &str) -> String {
    let last = recording.events.back().map_or(0, |event| event.at);
    let violation = violation.map(|violation| Broken {
        // A panic can't say when.
        at: if violation.at == 0 { last } else { violation.at },
        invariant: violation.invariant,
        what: &violation.what,
        seed: violation.seed,
        explained: explain(violation.invariant),
    });
    let data = Data {
        title,
        forgotten: recording.forgotten,
        violation,
        before: &recording.before,
        events: recording.events.iter().collect(),
        letters: recording.letters().collect(),
    };
    let data = serde_json::to_string(&data).unwrap_or_else(|error| format!("{:?}", error.to_string()));
    // In a script element nothing but its end tag, or a comment's start, is special: without `<` there is neither.
    let data = data.replace('<', "\\u003c");
    let script = SCRIPTS.concat();
    fill(TEMPLATE, &[("title", &escape(title)), ("style", STYLE), ("script", &script), ("data", &data)])
}

/// Puts values where the template names them, in one pass: a value is never looked into.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut page =
        String::with_capacity(template.len() + values.iter().map(|(_, value)| value.len()).sum::<usize>());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        page.push_str(before);
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        page.push_str(values.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value));
        rest = after;
    }
    page.push_str(rest);
    page
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A recording of nothing, and words that would like to be more than words.
    fn hostile() -> (String, String) {
        let what = "</script><script>alert(1)</script> <!-- & \" ' \\ {{data}} \u{2028} \u{0}".to_owned();
        let violation = Violation { invariant: "S1", seed: 1, at: 7, what: what.clone() };
        let page = page(&Recording::new(10), Some(&violation), "<b>{{script}}</b> & \"more\"");
        (page, what)
    }

    #[test]
    fn hostile_words_stay_words() {
        let (page, what) = hostile();
        assert_eq!(page.matches("</script").count(), 2, "the two that the template has");
        assert_eq!(page.matches("<script").count(), 2);
        assert!(page.contains("<title>&lt;b&gt;{{script}}&lt;/b&gt; &amp; &quot;more&quot;</title>"));
        let data = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["violation"]["what"], what.as_str());
    }

    #[test]
    fn each_invariant_is_explained_once() {
        for id in [
            "S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "M1", "M2", "M3", "M4", "M5", "P1", "P2",
            "P3", "R1", "R2", "X1", "D1", "D2", "D3", "D4", "D5", "D6", "T1", "B1", "liveness", "contract",
            "refused", "transfer", "wire", "coverage", "panic",
        ] {
            assert_eq!(explain(id).id, id);
        }
        assert_eq!(explain("something new").id, "?");
    }
}

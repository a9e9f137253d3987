//! What the commands share: time, files, and how a result is told.

pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod shrink;

use std::{
    fs::File,
    io::{BufReader, BufWriter, IsTerminal, stderr},
    path::Path,
    process::ExitCode,
};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use quorate_sim::{Schedule, Violation};

/// 1 where something was violated.
pub(crate) const fn code(violation: Option<&Violation>) -> ExitCode {
    if violation.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// A panic in the core is a violation like any other, and is told as one.
pub(crate) fn hush_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}

pub(crate) fn read_schedule(path: &Path) -> anyhow::Result<Schedule> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    Schedule::read(BufReader::new(file)).with_context(|| path.display().to_string())
}

pub(crate) fn write_schedule(schedule: &Schedule, path: &Path) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    schedule.write(BufWriter::new(file)).with_context(|| format!("writing {}", path.display()))
}

/// Writes a picture, and says where it is.
pub(crate) fn write_page(page: &str, path: &Path) -> anyhow::Result<()> {
    std::fs::write(path, page).with_context(|| format!("writing {}", path.display()))?;
    eprintln!("drawn: {}", path.display());
    Ok(())
}

/// A bar, where somebody looks; `length` is not known for all.
pub(crate) fn progress_bar(length: Option<u64>, template: &str) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    length.map_or_else(ProgressBar::no_length, ProgressBar::new).with_style(style)
}

#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "how long runs take: not part of any run"
)]
pub(crate) fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

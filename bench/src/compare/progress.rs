//! What the user sees while a comparison runs.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on a terminal, lines on standard error elsewhere, or nothing.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    lines: bool,
}

impl Progress {
    /// A bar over `total` of load, or lines when standard error is no terminal.
    pub fn visible(total: Duration) -> Progress {
        let bar = ProgressBar::new(u64::try_from(total.as_millis()).unwrap_or(u64::MAX));
        let template = "{bar:30} {percent:>3} %  {msg}";
        bar.set_style(ProgressStyle::with_template(template).expect("the template is well-formed"));
        let lines = bar.is_hidden();
        Progress { bar, lines }
    }

    /// Nothing.
    pub fn hidden() -> Progress {
        Progress { bar: ProgressBar::hidden(), lines: false }
    }

    /// What happens next.
    pub fn step(&self, text: &str) {
        self.bar.set_message(text.to_owned());
        if self.lines {
            eprintln!("{text}");
        }
    }

    /// That much of the load has been made.
    pub fn advance(&self, length: Duration) {
        self.bar.inc(u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
    }

    /// A line that stays above the bar.
    pub fn note(&self, text: &str) {
        if self.lines {
            eprintln!("{text}");
        } else {
            self.bar.println(text);
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

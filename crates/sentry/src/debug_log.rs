//! Debug messages of the kernel process: one line each on standard error,
//! which is the debug log or nothing.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Lets messages of `level` and above through from now on.
pub(crate) fn install(level: Level) {
    let lines = Lines { level, next_span: AtomicU64::new(1) };
    // Fails only when one is installed already.
    let _ = tracing::subscriber::set_global_default(lines);
}

struct Lines {
    level: Level,
    next_span: AtomicU64,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= &self.level
    }

    fn new_span(&self, _attributes: &Attributes<'_>) -> Id {
        Id::from_u64(self.next_span.fetch_add(1, Ordering::Relaxed).max(1))
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        // Calls under trace stand alone, for whoever reads what strace(1) writes.
        let bare = metadata.target() == "strace";
        let head = if bare { String::new() } else { format!("{} {}:", metadata.level(), metadata.target()) };
        let mut line = Line(head);
        event.record(&mut line);
        let mut text = escaped(line.0.trim_start());
        text.push('\n');
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// What a guest has named cannot begin a line of its own, nor speak to a terminal.
fn escaped(line: &str) -> String {
    if !line.contains(char::is_control) {
        return line.to_owned();
    }
    let show = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    line.chars().map(show).collect()
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_is_one_line() {
        assert_eq!(super::escaped("a\nb\u{1b}[2J\tc"), "a\\nb\\u{1b}[2J\\tc");
        assert_eq!(super::escaped("plain ü"), "plain ü");
    }
}

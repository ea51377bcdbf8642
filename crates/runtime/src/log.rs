//! Messages for people and engines, in runc's shapes.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write, stderr};
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::clock;

static LOG: OnceLock<Log> = OnceLock::new();

/// Where messages go.
#[derive(Debug)]
struct Log {
    file: Option<File>,
    json: bool,
    debug: bool,
}

#[derive(Serialize)]
struct Entry<'a> {
    level: &'a str,
    msg: &'a str,
    time: &'a str,
}

/// Opens the log. `format` is `text` or `json`.
pub(crate) fn open(path: Option<&Path>, format: Format, debug: bool) -> Result<()> {
    let file = match path {
        Some(path) if !path.as_os_str().is_empty() => Some(
            OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .with_context(|| format!("open log file {}", path.display()))?,
        ),
        _ => None,
    };
    let json = format == Format::Json;
    let _ = LOG.set(Log { file, json, debug });
    Ok(())
}

/// Shape of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// `time="…" level=… msg="…"`
    Text,
    /// One JSON object a line.
    Json,
}

/// Notes something that only developers read.
pub(crate) fn debug(message: &str) {
    if LOG.get().is_some_and(|log| log.debug) {
        write("debug", message);
    }
}

/// Notes something odd that does not stop the command.
pub(crate) fn warning(message: &str) {
    write("warning", message);
}

/// Reports why the command failed. With a log file the message goes to
/// standard error too, bare, as engines and people expect.
pub(crate) fn error(message: &str) {
    write("error", message);
    if LOG.get().is_some_and(|log| log.file.is_some()) {
        let _ = writeln!(stderr(), "{message}");
    }
}

fn write(level: &str, message: &str) {
    let log = LOG.get();
    let json = log.is_some_and(|log| log.json);
    let time = clock::rfc3339(clock::now());
    let line = if json {
        serde_json::to_string(&Entry { level, msg: message, time: &time }).unwrap_or_default()
    } else if log.is_none_or(|log| log.file.is_none()) && stderr().is_terminal() {
        format!("{}[0000] {message}", short(level))
    } else {
        format!("time=\"{time}\" level={level} msg={message:?}")
    };
    let line = format!("{line}\n");
    let _ = match log.and_then(|log| log.file.as_ref()) {
        Some(mut file) => file.write_all(line.as_bytes()),
        None => stderr().write_all(line.as_bytes()),
    };
}

fn short(level: &str) -> &str {
    match level {
        "debug" => "DEBU",
        "warning" => "WARN",
        _ => "ERRO",
    }
}

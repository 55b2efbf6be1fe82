//! Script files: split into scripts and lines. What a line says is read when it is run.

use std::path::Path;
use std::{fs, io};

use crate::segment::number;

/// One script.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// `topic/name`.
    pub(crate) name: String,
    /// File and line of its title.
    pub(crate) place: String,
    pub(crate) lines: Vec<Line>,
}

/// One statement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) number: usize,
    /// Milliseconds that pass first.
    pub(crate) wait: u64,
    /// Which flow it is about.
    pub(crate) flow: usize,
    /// Empty if there was nothing but a wait.
    pub(crate) text: String,
}

/// Every script of a folder, in the order of its files.
pub(crate) fn load(folder: &Path) -> io::Result<Result<Vec<Script>, String>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "fw") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut scripts = Vec::new();
    for path in paths {
        let topic = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match parse(&topic, &fs::read_to_string(&path)?) {
            Ok(more) => scripts.extend(more),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(scripts))
}

/// The scripts of one file. An error starts with file and line.
pub(crate) fn parse(topic: &str, file: &str) -> Result<Vec<Script>, String> {
    let mut scripts: Vec<Script> = Vec::new();
    // Where the lines of a `repeat` start, and how often they are run.
    let mut repeat: Option<(usize, usize)> = None;
    for (number, line) in (1..).zip(file.lines()) {
        let place = format!("{topic}.fw:{number}");
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        if let Some(title) = line.strip_prefix("== ") {
            if repeat.is_some() {
                return Err(format!("{place}: the repeat before has no end"));
            }
            let name = format!("{topic}/{}", title.trim());
            let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if !title.trim().chars().all(is_name) {
                return Err(format!("{place}: a name has small letters, digits and _: {title}"));
            }
            if scripts.iter().any(|script| script.name == name) {
                return Err(format!("{place}: {name} twice"));
            }
            scripts.push(Script { name, place, lines: Vec::new() });
            continue;
        }
        let script = scripts.last_mut().ok_or_else(|| format!("{place}: no script yet"))?;
        let statement = parse_line(number, line).map_err(|error| format!("{place}: {error}"))?;
        match (statement.text.split_once(' '), repeat) {
            (Some(("repeat", times)), None) => {
                let times = times.parse().map_err(|_| format!("{place}: repeat how often?"))?;
                repeat = Some((script.lines.len(), times));
            }
            (None, Some((start, times))) if statement.text == "end" => {
                let block = script.lines[start..].to_vec();
                (1..times).for_each(|_| script.lines.extend_from_slice(&block));
                repeat = None;
            }
            _ => script.lines.push(statement),
        }
    }
    if repeat.is_some() {
        return Err(format!("{topic}.fw: the last repeat has no end"));
    }
    Ok(scripts)
}

/// `[FLOW] +TIME statement`, the first two optional.
fn parse_line(number: usize, line: &str) -> Result<Line, String> {
    let (mut flow, mut wait, mut rest) = (1, 0, line);
    if let Some((inside, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        flow = inside.parse().map_err(|_| format!("not a flow: [{inside}]"))?;
        rest = after.trim_start();
    }
    if let Some(after) = rest.strip_prefix('+') {
        let (time, after) = after.split_once(' ').unwrap_or((after, ""));
        wait = parse_time(time).ok_or_else(|| format!("not a time: +{time}"))?;
        rest = after.trim_start();
    }
    Ok(Line { number, wait, flow, text: rest.to_string() })
}

/// Milliseconds; `s`, `m`, `h` and `d` are longer.
pub(crate) fn parse_time(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// `FLAGS SEQ:END(COUNTxLEN) …` is `COUNT` segments, of which only the last one has PSH or FIN.
pub(crate) fn expand(words: &[&str]) -> Result<Vec<String>, String> {
    let [flags, place, rest @ ..] = words else { return Err("FLAGS SEQ".into()) };
    let Some((span, parts)) = place.split_once('(') else { return Ok(vec![words.join(" ")]) };
    let Some((count, len)) = parts.trim_end_matches(')').split_once('x') else {
        return Ok(vec![words.join(" ")]);
    };
    let (start, end) = span.split_once(':').ok_or_else(|| format!("no end: {place}"))?;
    let (start, end): (i64, i64) = (number(start)?, number(end)?);
    let (count, len): (i64, i64) = (number(count)?, number(len)?);
    if end - start != count * len {
        return Err(format!("wrong sum: {place}"));
    }
    let rest = rest.join(" ");
    let inner: String = flags.chars().filter(|flag| !matches!(flag, 'P' | 'F')).collect();
    let text = |i: i64| {
        let flags = if i == count - 1 { flags } else { inner.as_str() };
        let from = start + i * len;
        format!("{flags} {from}:{}({len}) {rest}", from + len).trim_end().to_string()
    };
    Ok((0..count).map(text).collect())
}

//! A segment as text, much as tcpdump prints it, numbers relative to the initial ones: 0 is the SYN,
//! 1 the first data byte. Tests of a connection and segment scripts of a whole stack share it.
//!
//! `FLAGS SEQ` or `FLAGS SEQ:END(LEN)`, then any of `ack N`, `win N`, `urg N`, `tos N`, `ttl N`, `mss N`,
//! `ws N`, `ts VALUE:ECHO`, `sackok yes`, `sack L:R,L:R`. A `-` for a value says that the option is
//! not there (`sackok no` for that one). What a text does not mention may be anything.

use std::fmt;

use fourwave_wire::{Flags, Options};

/// A segment, or what is said of one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Text {
    pub(crate) flags: Flags,
    pub(crate) seq: i64,
    pub(crate) len: i64,
    pub(crate) ack: Option<i64>,
    pub(crate) window: Option<u16>,
    pub(crate) urgent: Option<u16>,
    pub(crate) tos: Option<u8>,
    pub(crate) ttl: Option<u8>,
    /// Of this and what follows, the inner `None` says that the option is not there.
    pub(crate) mss: Option<Option<u16>>,
    pub(crate) window_scale: Option<Option<u8>>,
    pub(crate) timestamps: Option<Option<(u32, u32)>>,
    pub(crate) sack_permitted: Option<bool>,
    pub(crate) sack: Option<Vec<(i64, i64)>>,
}

/// The byte at `offset` of any test stream.
pub(crate) fn stream_byte(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// A number on the circle, as far from `initial` as scripts count.
pub(crate) fn relative(number: u32, initial: u32) -> i64 {
    i64::from(number.wrapping_sub(initial) as i32)
}

/// Takes a word that is not a segment's, and what belongs to it; `false` if it does not know it.
pub(crate) type Other<'a, 'f> =
    dyn FnMut(&'a str, &mut dyn Iterator<Item = &'a str>) -> Result<bool, String> + 'f;

impl Text {
    /// Reads a text, and leaves words that `other` knows to it.
    pub(crate) fn parse<'a>(
        words: &mut dyn Iterator<Item = &'a str>,
        other: &mut Other<'a, '_>,
    ) -> Result<Text, String> {
        let flags = parse_flags(words.next().ok_or("flags are missing")?)?;
        let (seq, len) = parse_place(words.next().ok_or("the sequence number is missing")?)?;
        let mut text = Text { flags, seq, len, ..Text::default() };
        while let Some(word) = words.next() {
            if other(word, words)? {
                continue;
            }
            let value = words.next().ok_or_else(|| format!("{word} what?"))?;
            match word {
                "ack" => text.ack = Some(number(value)?),
                "win" => text.window = Some(number(value)?),
                "urg" => text.urgent = Some(number(value)?),
                "tos" => text.tos = Some(number(value)?),
                "ttl" => text.ttl = Some(number(value)?),
                "mss" => text.mss = Some(optional(value, number)?),
                "ws" => text.window_scale = Some(optional(value, number)?),
                "ts" => text.timestamps = Some(optional(value, pair)?),
                "sackok" => text.sack_permitted = Some(yes_or_no(value)?),
                "sack" => {
                    let blocks = optional(value, |list| list.split(',').map(pair).collect())?;
                    text.sack = Some(blocks.unwrap_or_default());
                }
                _ => return Err(format!("no such word: {word}")),
            }
        }
        Ok(text)
    }

    /// Takes the options of a segment, its SACK blocks relative to `initial`.
    pub(crate) fn set_options(&mut self, options: &Options, initial: u32) {
        self.mss = Some(options.mss);
        self.window_scale = Some(options.window_scale);
        self.timestamps = Some(options.timestamps.map(|times| (times.value, times.echo)));
        self.sack_permitted = Some(options.sack_permitted);
        let blocks = options.sack.as_slice().iter();
        let edges = |left, right| (relative(left, initial), relative(right, initial));
        self.sack = Some(blocks.map(|block| edges(block.left, block.right)).collect());
    }

    /// Whether `seen` is what this text says.
    pub(crate) fn matches(&self, seen: &Text) -> bool {
        fn fits<T: PartialEq>(wanted: &Option<T>, seen: &Option<T>) -> bool {
            wanted.is_none() || wanted == seen
        }
        (self.flags, self.seq, self.len, self.ack) == (seen.flags, seen.seq, seen.len, seen.ack)
            && fits(&self.window, &seen.window)
            && fits(&self.urgent, &seen.urgent)
            && fits(&self.tos, &seen.tos)
            && fits(&self.ttl, &seen.ttl)
            && fits(&self.mss, &seen.mss)
            && fits(&self.window_scale, &seen.window_scale)
            && fits(&self.timestamps, &seen.timestamps)
            && fits(&self.sack_permitted, &seen.sack_permitted)
            && fits(&self.sack, &seen.sack)
    }
}

impl Default for Text {
    fn default() -> Text {
        Text {
            flags: Flags::EMPTY,
            seq: 0,
            len: 0,
            ack: None,
            window: None,
            urgent: None,
            tos: None,
            ttl: None,
            mss: None,
            window_scale: None,
            timestamps: None,
            sack_permitted: None,
            sack: None,
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Text { seq, len, .. } = *self;
        match self.flags {
            Flags::EMPTY => write!(f, "- {seq}")?,
            flags => write!(f, "{flags} {seq}")?,
        }
        if len > 0 {
            write!(f, ":{}({len})", seq + len)?;
        }
        if let Some(ack) = self.ack {
            write!(f, " ack {ack}")?;
        }
        if let Some(window) = self.window {
            write!(f, " win {window}")?;
        }
        if let Some(urgent) = self.urgent.filter(|_| self.flags.contains(Flags::URG)) {
            write!(f, " urg {urgent}")?;
        }
        if let Some(tos @ 1..) = self.tos {
            write!(f, " tos {tos}")?;
        }
        if let Some(ttl) = self.ttl.filter(|ttl| *ttl != 64) {
            write!(f, " ttl {ttl}")?;
        }
        if let Some(Some(mss)) = self.mss {
            write!(f, " mss {mss}")?;
        }
        if let Some(Some(scale)) = self.window_scale {
            write!(f, " ws {scale}")?;
        }
        if let Some(Some((value, echo))) = self.timestamps {
            write!(f, " ts {value}:{echo}")?;
        }
        if self.sack_permitted == Some(true) {
            write!(f, " sackok yes")?;
        }
        for (i, (left, right)) in self.sack.iter().flatten().enumerate() {
            write!(f, "{}{left}:{right}", if i == 0 { " sack " } else { "," })?;
        }
        Ok(())
    }
}

fn parse_flags(letters: &str) -> Result<Flags, String> {
    letters.chars().try_fold(Flags::EMPTY, |flags, letter| {
        Ok(flags
            | match letter {
                'S' => Flags::SYN,
                'F' => Flags::FIN,
                'R' => Flags::RST,
                'P' => Flags::PSH,
                'U' => Flags::URG,
                'E' => Flags::ECE,
                'W' => Flags::CWR,
                '.' => Flags::ACK,
                '-' => Flags::EMPTY,
                other => return Err(format!("no flag: {other}")),
            })
    })
}

/// Sequence number and length.
fn parse_place(place: &str) -> Result<(i64, i64), String> {
    let Some((seq, rest)) = place.split_once(':') else { return Ok((number(place)?, 0)) };
    let (end, len) = rest
        .strip_suffix(')')
        .and_then(|rest| rest.split_once('('))
        .ok_or_else(|| format!("not SEQ:END(LEN): {place}"))?;
    let (seq, end, len): (i64, i64, i64) = (number(seq)?, number(end)?, number(len)?);
    if end - seq == len && len > 0 { Ok((seq, len)) } else { Err(format!("wrong sum: {place}")) }
}

pub(crate) fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("not a number that fits: {text}"))
}

fn pair<T: std::str::FromStr>(text: &str) -> Result<(T, T), String> {
    let (left, right) = text.split_once(':').ok_or_else(|| format!("not a pair: {text}"))?;
    Ok((number(left)?, number(right)?))
}

fn optional<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    if text == "-" { Ok(None) } else { parse(text).map(Some) }
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        other => Err(format!("yes or no, not {other}")),
    }
}

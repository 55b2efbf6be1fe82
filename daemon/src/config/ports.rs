//! Ranges of TCP ports: `"61000-65535"`, `"80"`, or `""` for none.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A range of ports, possibly empty. Port 0 is never in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRange(Option<RangeInclusive<u16>>);

impl PortRange {
    /// No port at all.
    pub const NONE: PortRange = PortRange(None);

    /// From `first` to `last`, both included; nothing when that is no range of ports.
    pub fn new(first: u16, last: u16) -> Option<PortRange> {
        (first != 0 && first <= last).then_some(PortRange(Some(first..=last)))
    }

    /// First and last port.
    pub fn bounds(&self) -> Option<(u16, u16)> {
        self.0.as_ref().map(|range| (*range.start(), *range.end()))
    }

    /// Whether `port` is in it.
    pub fn contains(&self, port: u16) -> bool {
        self.0.as_ref().is_some_and(|range| range.contains(&port))
    }

    /// Whether a port is in both.
    pub fn overlaps(&self, other: &PortRange) -> bool {
        match (self.bounds(), other.bounds()) {
            (Some((a, b)), Some((c, d))) => a <= d && c <= b,
            (None, _) | (_, None) => false,
        }
    }

    /// Every port in it, in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + use<> {
        self.0.clone().into_iter().flatten()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bounds() {
            None => Ok(()),
            Some((first, last)) if first == last => write!(f, "{first}"),
            Some((first, last)) => write!(f, "{first}-{last}"),
        }
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<PortRange, String> {
        if text.is_empty() {
            return Ok(PortRange::NONE);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        first
            .trim()
            .parse()
            .ok()
            .zip(last.trim().parse().ok())
            .and_then(|(first, last)| PortRange::new(first, last))
            .ok_or_else(|| {
                format!(
                    "{text:?} is not a range of ports: FIRST-LAST or one port, \
                     1 to 65535, or \"\" for none"
                )
            })
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PortRange, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let range: PortRange = "61000-65535".parse().unwrap();
        assert!(range.contains(61000) && range.contains(65535) && !range.contains(60999));
        assert_eq!(range.iter().count(), 4536);
        let one: PortRange = "80".parse().unwrap();
        assert_eq!(one.bounds(), Some((80, 80)));
        assert!(!one.overlaps(&range));
        assert!(range.overlaps(&PortRange::new(1024, 61000).unwrap()));
        assert_eq!("".parse(), Ok(PortRange::NONE));
        assert_eq!(PortRange::NONE.iter().count(), 0);
        for wrong in ["0", "0-5", "5-4", "x", "1-65536", "-", "80,443"] {
            assert!(wrong.parse::<PortRange>().is_err(), "{wrong}");
        }
        for text in ["61000-65535", "80", ""] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
        }
    }
}

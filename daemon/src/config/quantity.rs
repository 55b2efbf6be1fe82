//! Durations and sizes as people write them: `"40ms"`, `"60s"`, `"1GiB"`.

use std::time::Duration;

/// Units of time, the longest first, with their length in nanoseconds.
const TIMES: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Units of size, the largest first, with their bytes.
const SIZES: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Splits `text` into a number and its unit, and multiplies.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = units.iter().find(|(name, _)| *name == unit.trim())?.1;
    number.parse::<u64>().ok()?.checked_mul(scale)
}

/// The largest unit that divides `value`.
fn format(value: u64, units: &[(&str, u64)]) -> String {
    let fits = |(_, scale): &&(&str, u64)| value.is_multiple_of(*scale) && value >= *scale;
    match units.iter().find(fits) {
        Some((name, scale)) => format!("{}{name}", value / scale),
        // Only zero fits no unit.
        None => format!("0{}", units[units.len() / 2].0),
    }
}

/// For `#[serde(with = "quantity::duration")]`: a string such as `"200ms"`.
pub(super) mod duration {
    use super::{Duration, TIMES};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        let nanos = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        s.serialize_str(&super::format(nanos, &TIMES))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(d)?;
        super::parse(&text, &TIMES).map(Duration::from_nanos).ok_or_else(|| {
            D::Error::custom(format_args!(
                "{text:?} is not a duration: a whole number and a unit \
                     (ns, us, ms, s, min, h), such as \"200ms\""
            ))
        })
    }
}

/// For `#[serde(with = "quantity::bytes")]`: a string such as `"64MiB"`, in bytes.
pub(super) mod bytes {
    use super::SIZES;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(crate) fn serialize<S: Serializer>(value: &u64, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::format(*value, &SIZES))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
        let text = String::deserialize(d)?;
        super::parse(&text, &SIZES).ok_or_else(|| {
            D::Error::custom(format_args!(
                "{text:?} is not a size: a whole number and a unit \
                 (B, KiB, MiB, GiB, TiB), such as \"64MiB\""
            ))
        })
    }
}

/// As [`bytes`], for a key that may be absent.
pub(super) mod optional_bytes {
    use serde::{Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
    pub(crate) fn serialize<S: Serializer>(value: &Option<u64>, s: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::bytes::serialize(value, s),
            None => s.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
        super::bytes::deserialize(d).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write() {
        assert_eq!(parse("40ms", &TIMES), Some(40_000_000));
        assert_eq!(parse("2 min", &TIMES), Some(120_000_000_000));
        assert_eq!(parse("0s", &TIMES), Some(0));
        assert_eq!(parse("1GiB", &SIZES), Some(1 << 30));
        for wrong in ["", "5", "ms", "-1s", "1.5s", "1S", "99999999999h"] {
            assert_eq!(parse(wrong, &TIMES), None, "{wrong:?}");
        }
        for wrong in ["1GB", "1g", "16777216TiB"] {
            assert_eq!(parse(wrong, &SIZES), None, "{wrong:?}");
        }
    }

    #[test]
    fn written_as_people_write() {
        for (value, text) in
            [(40_000_000, "40ms"), (60_000_000_000, "1min"), (90_000_000_000, "90s"), (0, "0ms")]
        {
            assert_eq!(format(value, &TIMES), text);
            assert_eq!(parse(text, &TIMES), Some(value));
        }
        assert_eq!(format(3 << 29, &SIZES), "1536MiB");
    }
}

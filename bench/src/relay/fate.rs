//! What happens to each frame: a pure function of a seed, so that a run can be repeated.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// How bad a path is. Chances are per frame and direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Impairment {
    /// Chance to be lost, per cent.
    pub loss: f64,
    /// Chance to arrive twice, per cent.
    pub duplicate: f64,
    /// Chance to be overtaken by up to [`MOST_OVERTAKING`] later frames, per cent.
    pub reorder: f64,
    /// One-way delay, microseconds.
    pub delay_us: u64,
}

impl fmt::Display for Impairment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Impairment { loss, duplicate, reorder, delay_us } = *self;
        let mut parts = Vec::new();
        for (name, chance) in [("loss", loss), ("duplicate", duplicate), ("reorder", reorder)] {
            if chance > 0.0 {
                parts.push(format!("{name}={chance}"));
            }
        }
        if delay_us > 0 {
            parts.push(format!("delay={delay_us}us"));
        }
        f.write_str(if parts.is_empty() { "clean" } else { "" })?;
        f.write_str(&parts.join(","))
    }
}

impl FromStr for Impairment {
    type Err = String;

    /// `clean`, or some of `loss=P`, `duplicate=P`, `reorder=P` (per cent) and `delay=Nus` with
    /// commas in between.
    fn from_str(text: &str) -> Result<Impairment, String> {
        let mut impairment = Impairment::default();
        if text == "clean" {
            return Ok(impairment);
        }
        for part in text.split(',') {
            let (name, value) =
                part.split_once('=').ok_or_else(|| format!("`{part}` is not NAME=VALUE"))?;
            let chance = || match value.parse::<f64>() {
                Ok(chance) if (0.0..=100.0).contains(&chance) => Ok(chance),
                Ok(_) | Err(_) => Err(format!("`{value}` is not a number of per cent")),
            };
            match name {
                "loss" => impairment.loss = chance()?,
                "duplicate" => impairment.duplicate = chance()?,
                "reorder" => impairment.reorder = chance()?,
                "delay" => {
                    let number = value.strip_suffix("us").and_then(|number| number.parse().ok());
                    impairment.delay_us = number
                        .filter(|delay| *delay <= LONGEST_DELAY_US)
                        .ok_or_else(|| format!("`{value}` is not a delay such as 500us"))?;
                }
                other => {
                    return Err(format!("`{other}` is none of loss, duplicate, reorder and delay"));
                }
            }
        }
        let Impairment { loss, duplicate, reorder, .. } = impairment;
        if loss + duplicate + reorder > 100.0 {
            return Err("loss, duplicate and reorder are more than 100 % together".to_owned());
        }
        Ok(impairment)
    }
}

/// A second.
const LONGEST_DELAY_US: u64 = 1_000_000;

/// Most frames that overtake one that is held back.
pub const MOST_OVERTAKING: u32 = 8;

/// What happens to one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Forward,
    /// It is lost.
    Lose,
    /// It goes on twice.
    Duplicate,
    /// It waits for so many later ones.
    HoldFor(u32),
}

/// Draws fates (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice {
    state: u64,
    impairment: Impairment,
}

impl Dice {
    /// The fates that follow from `seed`.
    pub fn new(impairment: Impairment, seed: u64) -> Dice {
        Dice { state: seed, impairment }
    }

    /// The next frame's.
    pub fn next_fate(&mut self) -> Fate {
        let Impairment { loss, duplicate, reorder, delay_us: _ } = self.impairment;
        let drawn = self.per_cent();
        if drawn < loss {
            Fate::Lose
        } else if drawn < loss + duplicate {
            Fate::Duplicate
        } else if drawn < loss + duplicate + reorder {
            Fate::HoldFor(1 + (self.word() % u64::from(MOST_OVERTAKING)) as u32)
        } else {
            Fate::Forward
        }
    }

    /// Uniform in 0 to 100.
    fn per_cent(&mut self) -> f64 {
        (self.word() >> 11) as f64 * (100.0 / (1_u64 << 53) as f64)
    }

    fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_come_as_often_as_asked_for_and_again_from_the_same_seed() {
        let impairment = Impairment { loss: 5.0, duplicate: 1.0, reorder: 2.0, delay_us: 0 };
        let draw = |seed| {
            let mut dice = Dice::new(impairment, seed);
            (0..100_000).map(move |_| dice.next_fate()).collect::<Vec<_>>()
        };
        let fates = draw(7);
        assert_eq!(fates, draw(7));
        assert_ne!(fates, draw(8));
        let count = |test: fn(&Fate) -> bool| fates.iter().filter(|fate| test(fate)).count();
        assert!((4_700..5_300).contains(&count(|fate| *fate == Fate::Lose)));
        assert!((850..1_150).contains(&count(|fate| *fate == Fate::Duplicate)));
        assert!((1_800..2_200).contains(&count(|fate| matches!(fate, Fate::HoldFor(1..=8)))));
    }

    #[test]
    fn paths_are_read_as_they_are_written() {
        for text in ["clean", "loss=0.1", "loss=1,duplicate=2,reorder=3", "reorder=2,delay=500us"] {
            assert_eq!(text.parse::<Impairment>().unwrap().to_string(), text);
        }
        for bad in ["", "loss", "loss=x", "loss=-1", "loss=60,reorder=50", "delay=5", "rain=1"] {
            assert!(bad.parse::<Impairment>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_good_path_forwards_everything() {
        let mut dice = Dice::new(Impairment::default(), 1);
        assert!((0..1000).all(|_| dice.next_fate() == Fate::Forward));
    }
}

//! The DSCP of copies.

use super::number;
use crate::config::problem::{Kind, Problem, nearest, quote};

/// Names by number. RFC 2474 (CS), RFC 2597 (AF), RFC 3246 (EF), RFC 5865 (VOICE-ADMIT), RFC 8622
/// (LE).
const NAMES: &[(&str, u8)] = &[
    ("default", 0),
    ("be", 0),
    ("le", 1),
    ("cs0", 0),
    ("cs1", 8),
    ("cs2", 16),
    ("cs3", 24),
    ("cs4", 32),
    ("cs5", 40),
    ("cs6", 48),
    ("cs7", 56),
    ("af11", 10),
    ("af12", 12),
    ("af13", 14),
    ("af21", 18),
    ("af22", 20),
    ("af23", 22),
    ("af31", 26),
    ("af32", 28),
    ("af33", 30),
    ("af41", 34),
    ("af42", 36),
    ("af43", 38),
    ("voice-admit", 44),
    ("ef", 46),
];

/// A DSCP, by its number or name.
///
/// # Errors
///
/// [`Kind::NotADscp`] and [`Kind::DscpOutOfRange`].
pub fn dscp(text: &str) -> Result<u8, Problem> {
    if let Some(value) = number(text) {
        if let Ok(value @ 0..=63) = u8::try_from(value) {
            return Ok(value);
        }
        let hint = match value {
            64..=255 if value % 4 == 0 => {
                format!(
                    " (as the upper six bits of the TOS byte it is `{}`)",
                    value / 4
                )
            }
            _ => String::new(),
        };
        let message = format!(
            "DSCP {} is out of range: 0 to 63 is right{hint}",
            quote(text)
        );
        return Err(Problem::new(Kind::DscpOutOfRange, message));
    }
    let lower = text.to_ascii_lowercase();
    if let Some((_, value)) = NAMES.iter().find(|(name, _)| *name == lower) {
        return Ok(*value);
    }
    let guess = nearest(text, NAMES.iter().map(|(name, _)| *name))
        .map_or_else(String::new, |guess| format!("did you mean `{guess}`? "));
    let message = format!(
        "{} is no DSCP: {guess}a number from 0 to 63 is right, or a name such as `ef`, `cs5` or \
         `af41`",
        quote(text)
    );
    Err(Problem::new(Kind::NotADscp, message))
}

//! VLANs, as they are matched and as they are set.

use super::number;
use crate::config::{
    model::{VlanEdit, VlanMatch},
    problem::{Kind, Problem, listed, nearest, quote},
};

/// Which frames, by their outermost tag.
///
/// # Errors
///
/// [`Kind::Vlan`] and [`Kind::VlanOutOfRange`].
pub fn vlan(text: &str) -> Result<VlanMatch, Problem> {
    match text {
        "untagged" => Ok(VlanMatch::Untagged),
        "any" => Ok(VlanMatch::Any),
        _ => id(
            text,
            &["untagged", "any"],
            "it counts as no tag, write `untagged`",
        )
        .map(VlanMatch::Id),
    }
}

/// What becomes of the outermost tag of copies.
///
/// # Errors
///
/// [`Kind::Vlan`] and [`Kind::VlanOutOfRange`].
pub fn new_vlan(text: &str) -> Result<VlanEdit, Problem> {
    match text {
        "untagged" => Ok(VlanEdit::Untagged),
        "any" | "keep" => {
            let message = format!(
                "{} is no tag for a copy: leave `vlan` out here to keep the tag the frame came with",
                quote(text)
            );
            Err(Problem::new(Kind::Vlan, message))
        }
        _ => id(text, &["untagged"], "a copy without a tag is `untagged`").map(VlanEdit::Id),
    }
}

/// A VLAN ID: 1 to 4094 (IEEE 802.1Q-2022 table 9-2).
fn id(text: &str, words: &[&str], zero: &str) -> Result<u16, Problem> {
    let Some(value) = number(text) else {
        let guess = match nearest(text, words.iter().copied()) {
            Some(guess) => format!("did you mean `{guess}`? "),
            None if text.contains([',', '-', ' ']) => "a list is `[10, 11]`; ".to_owned(),
            None => String::new(),
        };
        let message = format!(
            "{} is no VLAN: {guess}{}, or a number from 1 to 4094, is right",
            quote(text),
            listed(words, "or")
        );
        return Err(Problem::new(Kind::Vlan, message));
    };
    if let Ok(value @ 1..=4094) = u16::try_from(value) {
        return Ok(value);
    }
    let hint = match value {
        0 => zero.to_owned(),
        4095 => "4095 is reserved, 1 to 4094 is right".to_owned(),
        _ => "1 to 4094 is right".to_owned(),
    };
    let message = format!("VLAN ID {} is out of range: {hint}", quote(text));
    Err(Problem::new(Kind::VlanOutOfRange, message))
}

//! Limits: of a relay's rate, and of what the tables hold.

use std::num::NonZeroU64;

use super::number;
use crate::config::{
    model::{Limit, Limits},
    problem::{Kind, Problem, quote},
};

/// Makes a limit of a number of frames or bits a second.
type Make = fn(NonZeroU64) -> Limit;

/// Units, with how many frames or bits a second one is.
const UNITS: &[(&str, Make, u64)] = &[
    ("pps", Limit::Frames, 1),
    ("kpps", Limit::Frames, 1_000),
    ("mpps", Limit::Frames, 1_000_000),
    ("bps", Limit::Bits, 1),
    ("kbps", Limit::Bits, 1_000),
    ("mbps", Limit::Bits, 1_000_000),
    ("gbps", Limit::Bits, 1_000_000_000),
];

/// How many frames or bits a second a relay takes.
///
/// # Errors
///
/// [`Kind::NotALimit`], [`Kind::LimitZero`] and [`Kind::LimitTooLarge`].
pub fn limit(text: &str) -> Result<Limit, Problem> {
    let lower = text.to_ascii_lowercase();
    let unit_at = lower.find(|c: char| c.is_ascii_alphabetic());
    let (amount, unit) = lower.split_at(unit_at.unwrap_or(lower.len()));
    let amount = amount.trim_end();
    let known = UNITS.iter().find(|(name, ..)| *name == unit);
    let (Some((_, make, factor)), Some((whole, billionths))) = (known, decimal(amount)) else {
        return Err(Problem::new(Kind::NotALimit, no_limit(text, amount, unit)));
    };
    let billionths_of_unit = u128::from(billionths) * u128::from(*factor);
    if billionths_of_unit % 1_000_000_000 != 0 {
        let message = format!(
            "the limit {} is no whole number of frames or bits a second: round it",
            quote(text)
        );
        return Err(Problem::new(Kind::NotALimit, message));
    }
    let value = u128::from(whole) * u128::from(*factor) + billionths_of_unit / 1_000_000_000;
    if value > u128::from(Limit::LARGEST) {
        let message = format!(
            "the limit {} is more than any link carries: up to {} Gpps or Gbps is right, without \
             `limit` there is none",
            quote(text),
            Limit::LARGEST / 1_000_000_000
        );
        return Err(Problem::new(Kind::LimitTooLarge, message));
    }
    let value = u64::try_from(value).ok().and_then(NonZeroU64::new);
    value.map(make).ok_or_else(|| {
        let message = format!(
            "nothing would pass the limit {}: leave `limit` out for none, or remove the relay",
            quote(text)
        );
        Problem::new(Kind::LimitZero, message)
    })
}

fn no_limit(text: &str, amount: &str, unit: &str) -> String {
    let hint = match unit.split_once("bit") {
        _ if number(text).is_some() => {
            format!("write `{text}pps` for frames or `{text}bps` for bits a second")
        }
        Some((prefix, _)) if decimal(amount).is_some() => format!("write `{amount}{prefix}bps`"),
        _ => "write it as `100pps`, `1.5Mpps`, `64kbps`, `400mbps` or `1gbps`".to_owned(),
    };
    format!("{} is no limit: {hint}", quote(text))
}

/// A decimal number: what is before the point, and billionths behind it.
fn decimal(text: &str) -> Option<(u64, u32)> {
    let (whole, places) = match text.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (text, ""),
    };
    let whole = number(whole)?;
    let digits = places.bytes().all(|b| b.is_ascii_digit());
    let billionths = (digits && places.len() <= 9).then(|| format!("{places:0<9}"))?;
    Some((whole, billionths.parse().ok()?))
}

/// How many routes of each address family the tables hold.
///
/// # Errors
///
/// [`Kind::NotACount`] and [`Kind::CountOutOfRange`].
pub fn routes(text: &str) -> Result<u32, Problem> {
    count(text, "routes", Limits::MOST_ROUTES)
}

/// How many ingress links the tables hold.
///
/// # Errors
///
/// As [`routes`].
pub fn links(text: &str) -> Result<u32, Problem> {
    count(text, "links", Limits::MOST_LINKS)
}

fn count(text: &str, what: &str, most: u32) -> Result<u32, Problem> {
    let Some(value) = number(text) else {
        let message = format!(
            "{} is no number of {what}: 1 to {most} is right",
            quote(text)
        );
        return Err(Problem::new(Kind::NotACount, message));
    };
    match u32::try_from(value) {
        Ok(value) if (1..=most).contains(&value) => Ok(value),
        _ => {
            let message = format!(
                "{} {what} are out of range: 1 to {most} is right",
                quote(text)
            );
            Err(Problem::new(Kind::CountOutOfRange, message))
        }
    }
}

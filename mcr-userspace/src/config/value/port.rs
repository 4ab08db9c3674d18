//! UDP ports.

use std::num::NonZeroU16;

use super::number;
use crate::config::{
    model::PortRange,
    problem::{Kind, Problem, quote},
};

/// UDP ports: one, or a range with both ends.
///
/// # Errors
///
/// [`Kind::NotAPort`], [`Kind::PortZero`], [`Kind::PortTooLarge`] and [`Kind::EmptyRange`].
pub fn port(text: &str) -> Result<PortRange, Problem> {
    if number(text).is_some() {
        return Ok(single(text, text)?.into());
    }
    if let Some((first, last)) = text.split_once('-')
        && number(first.trim()).is_some()
        && number(last.trim()).is_some()
    {
        let first = single(first.trim(), text)?;
        let last = single(last.trim(), text)?;
        if first <= last {
            return Ok(PortRange { first, last });
        }
        let message = format!(
            "the range of ports {} is empty: `{last}-{first}` would be right",
            quote(text)
        );
        return Err(Problem::new(Kind::EmptyRange, message));
    }
    let hint = match text.split_once(['/', ':']) {
        Some((port, _)) if text.contains('/') && number(port).is_some() => {
            format!("write `{port}`, the protocol is a field of its own")
        }
        Some((first, last)) if number(first).is_some() && number(last).is_some() => {
            format!("a range is `{first}-{last}`")
        }
        _ if text.contains([',', ' ']) => "a list is `[5000, 5001]`".to_owned(),
        _ => "a number from 1 to 65535 is right, or a range such as `5000-5010`".to_owned(),
    };
    let message = format!("{} is no port: {hint}", quote(text));
    Err(Problem::new(Kind::NotAPort, message))
}

/// The UDP port that copies go to.
///
/// # Errors
///
/// As [`port`], and [`Kind::NotOnePort`].
pub fn new_port(text: &str) -> Result<NonZeroU16, Problem> {
    let ports = port(text)?;
    if ports.first == ports.last {
        return Ok(ports.first);
    }
    let message = format!(
        "{} is a range: a copy goes to one port, write `{}`; without `port` copies go to the port \
         the frame came to",
        quote(text),
        ports.first
    );
    Err(Problem::new(Kind::NotOnePort, message))
}

fn single(digits: &str, text: &str) -> Result<NonZeroU16, Problem> {
    let Ok(port) = digits.parse::<u16>() else {
        let message = format!("port {} is too large: 1 to 65535 is right", quote(text));
        return Err(Problem::new(Kind::PortTooLarge, message));
    };
    NonZeroU16::new(port).ok_or_else(|| {
        let message = format!(
            "{} names port 0, which nothing is sent to: 1 to 65535 is right, any port if left out",
            quote(text)
        );
        Problem::new(Kind::PortZero, message)
    })
}

//! IP protocols.

use std::fmt;

use super::number;
use crate::config::problem::{Kind, Problem, nearest, quote};

/// UDP.
pub const UDP: u8 = 17;

/// Protocols people name, with what they are mostly called first. IANA, "Protocol Numbers".
const NAMES: &[(&str, u8)] = &[
    ("udp", UDP),
    ("icmp", 1),
    ("igmp", 2),
    ("ipencap", 4),
    ("tcp", 6),
    ("egp", 8),
    ("igp", 9),
    ("dccp", 33),
    ("ipv6", 41),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("ipv6-icmp", 58),
    ("icmpv6", 58),
    ("eigrp", 88),
    ("ospf", 89),
    ("etherip", 97),
    ("pim", 103),
    ("vrrp", 112),
    ("pgm", 113),
    ("l2tp", 115),
    ("isis", 124),
    ("sctp", 132),
    ("udplite", 136),
    ("mpls-in-ip", 137),
];

/// An entry of `protocol:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Every protocol but control traffic.
    Any,
    /// The one of this number.
    Number(u8),
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Number(number) => match NAMES.iter().find(|(_, known)| known == number) {
                Some((name, _)) => f.write_str(name),
                None => number.fmt(f),
            },
        }
    }
}

/// An IP protocol, by its name or number, or any.
///
/// # Errors
///
/// [`Kind::Protocol`].
pub fn protocol(text: &str) -> Result<Protocol, Problem> {
    if text == "any" {
        return Ok(Protocol::Any);
    }
    let known = NAMES.iter().find(|(name, _)| *name == text);
    if let Some((_, number)) = known {
        return Ok(Protocol::Number(*number));
    }
    let hint = match number(text).map(u8::try_from) {
        Some(Ok(number)) => return Ok(Protocol::Number(number)),
        Some(Err(_)) => "numbers are 0 to 255".to_owned(),
        None => {
            let names = NAMES.iter().map(|(name, _)| *name).chain(["any"]);
            let guess = nearest(text, names).map(|guess| format!("did you mean `{guess}`? "));
            format!(
                "{}a name such as `udp` or `igmp`, a number from 0 to 255, or `any` is right",
                guess.unwrap_or_default()
            )
        }
    };
    let message = format!("{} is no IP protocol: {hint}", quote(text));
    Err(Problem::new(Kind::Protocol, message))
}

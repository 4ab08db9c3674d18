//! Which frames, other than IP packets: MAC addresses and Ethernet types.

use std::fmt;

use super::number;
use crate::config::{
    model::MacPrefix,
    problem::{Kind, Problem, nearest, quote},
};

/// Ethernet types people name. IEEE Registration Authority, list of Ethernet types.
const NAMES: &[(&str, u16)] = &[
    ("wol", 0x0842),
    ("avtp", 0x22f0),
    ("msrp", 0x22ea),
    ("batman", 0x4305),
    ("mpls", 0x8847),
    ("mpls-multicast", 0x8848),
    ("eapol", 0x888e),
    ("profinet", 0x8892),
    ("aoe", 0x88a2),
    ("ethercat", 0x88a4),
    ("powerlink", 0x88ab),
    ("goose", 0x88b8),
    ("gse", 0x88b9),
    ("sv", 0x88ba),
    ("lldp", 0x88cc),
    ("sercos", 0x88cd),
    ("homeplug", 0x88e1),
    ("mrp", 0x88e3),
    ("mvrp", 0x88f5),
    ("mmrp", 0x88f6),
    ("ptp", 0x88f7),
    ("prp", 0x88fb),
    ("cfm", 0x8902),
    ("fcoe", 0x8906),
    ("hsr", 0x892f),
];

/// Numbers below are lengths (IEEE 802.3-2022 section 3.2.6).
const LOWEST: u16 = 0x600;

/// An entry of `ethertype:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ethertype {
    /// The number: neither IP nor ARP nor a tag, and not below 0x600.
    pub number: u16,
    /// The type whose hexadecimal number was probably meant by these decimal digits.
    pub instead: Option<(&'static str, u16)>,
}

impl fmt::Display for Ethertype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:04x}", self.number)
    }
}

/// An Ethernet type, by its name or number.
///
/// # Errors
///
/// [`Kind::NotAnEthertype`], [`Kind::EthertypeOutOfRange`], and types that other fields stand for.
pub fn ethertype(text: &str) -> Result<Ethertype, Problem> {
    let lower = text.to_ascii_lowercase();
    let hexadecimal = lower.strip_prefix("0x");
    let number = match hexadecimal {
        Some(digits) if digits.len() <= 8 => u32::from_str_radix(digits, 16).ok().map(u64::from),
        Some(_) => None,
        None => number(text).or_else(|| named(&lower)),
    };
    let Some(number) = number else {
        return Err(Problem::new(
            Kind::NotAnEthertype,
            no_ethertype(text, &lower),
        ));
    };
    let Some(number) = u16::try_from(number).ok().filter(|n| *n >= LOWEST) else {
        let message = format!(
            "{} is no Ethernet type: 0x0600 to 0xffff are, what is below is the length of a frame \
             (name the `mac` alone to take such frames)",
            quote(text)
        );
        return Err(Problem::new(Kind::EthertypeOutOfRange, message));
    };
    if let Some((kind, hint)) = other_field(number) {
        let message = format!("Ethernet type {} is {hint}", quote(text));
        return Err(Problem::new(kind, message));
    }
    let instead = u16::from_str_radix(text, 16).ok();
    let instead = NAMES.iter().find(|(_, known)| Some(*known) == instead);
    Ok(Ethertype {
        number,
        instead: instead.copied(),
    })
}

fn named(name: &str) -> Option<u64> {
    let (_, number) = NAMES.iter().find(|(known, _)| *known == name)?;
    Some(u64::from(*number))
}

fn no_ethertype(text: &str, lower: &str) -> String {
    let digits = (3..=4).contains(&lower.len()) && lower.bytes().all(|b| b.is_ascii_hexdigit());
    let guess = if digits {
        format!("did you mean `0x{lower}`? ")
    } else {
        nearest(text, NAMES.iter().map(|(name, _)| *name))
            .map_or_else(String::new, |guess| format!("did you mean `{guess}`? "))
    };
    format!(
        "{} is no Ethernet type: {guess}a number such as `0x88f7` is right, or a name such as `ptp` \
         or `goose`",
        quote(text)
    )
}

/// Why a type isn't one for `frames`.
fn other_field(number: u16) -> Option<(Kind, &'static str)> {
    Some(match number {
        0x0800 | 0x86dd => (
            Kind::EthertypeOfIp,
            "IP: `groups` says which IP packets are taken, `frames` is for what is not IP",
        ),
        0x8100 | 0x88a8 | 0x9100 | 0x9200 => (
            Kind::EthertypeOfTag,
            "that of a VLAN tag: `vlan` of the relay says which tags are taken, name the type \
             behind them",
        ),
        0x0806 => (
            Kind::EthertypeOfArp,
            "ARP, whose answers go to one station and would not come back: join the segments in a \
             bridge, or set `proxy_arp` on the links",
        ),
        _ => return None,
    })
}

/// Group addresses of layer 2: one, or a prefix.
///
/// # Errors
///
/// [`Kind::NotAMac`], [`Kind::MacPrefixLength`], [`Kind::MacNotGroup`] and [`Kind::MacHostBits`].
pub fn mac(text: &str) -> Result<MacPrefix, Problem> {
    let (address, length) = text.split_once('/').unwrap_or((text, "48"));
    let Some(address) = octets(address) else {
        let message = format!(
            "{} is no MAC address: one such as `01:1b:19:00:00:00` is right, or a prefix such as \
             `01:0c:cd:01:00:00/32`",
            quote(text)
        );
        return Err(Problem::new(Kind::NotAMac, message));
    };
    let Some(length) = number(length)
        .and_then(|length| u8::try_from(length).ok())
        .filter(|length| (8..=48).contains(length))
    else {
        let message = format!(
            "{} has no prefix length that can be: 8 to 48 is right for group MAC addresses",
            quote(text)
        );
        return Err(Problem::new(Kind::MacPrefixLength, message));
    };
    if address[0] & 1 == 0 {
        let message = format!(
            "{} is the MAC address of one station, not of a group (those have an odd first byte): \
             what is sent to one station is not relayed",
            quote(text)
        );
        return Err(Problem::new(Kind::MacNotGroup, message));
    }
    let right = MacPrefix::new(address, length);
    if right.address == address {
        return Ok(right);
    }
    let alone = MacPrefix::new(address, 48);
    let message = format!(
        "the prefix {} has bits set beyond its length: write `{right}`, or `{alone}` for this \
         address alone",
        quote(text)
    );
    Err(Problem::new(Kind::MacHostBits, message))
}

/// The bytes of a MAC address, separated by colons or by hyphens.
fn octets(text: &str) -> Option<[u8; 6]> {
    let separator = if text.contains('-') { '-' } else { ':' };
    let mut address = [0; 6];
    let mut parts = text.split(separator);
    for octet in &mut address {
        let part = parts.next()?;
        let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
        *octet = u8::from_str_radix(part, 16).ok().filter(|_| digits)?;
    }
    parts.next().is_none().then_some(address)
}

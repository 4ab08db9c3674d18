//! Groups and sources.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::{
    model::GroupMatch,
    problem::{Kind, Problem, quote},
};

const MULTICAST4: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4));
const MULTICAST6: IpNet = IpNet::V6(Ipv6Net::new_assert(
    Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0),
    8,
));

/// An entry of `groups:`: a multicast address, a prefix of them, or `broadcast`.
///
/// # Errors
///
/// What is no address, or holds others than multicast addresses.
pub fn group(text: &str) -> Result<GroupMatch, Problem> {
    if text == "broadcast" {
        return Ok(GroupMatch::Broadcast);
    }
    let prefix = address_or_prefix(text)?;
    if prefix == IpAddr::V4(Ipv4Addr::BROADCAST).into() {
        let message = format!(
            "{} is the broadcast address, not a multicast group: write `broadcast`, which also \
             takes what is sent to the broadcast address of the link's network",
            quote(text)
        );
        return Err(Problem::new(Kind::GroupIsBroadcast, message));
    }
    multicast(text, prefix).map(GroupMatch::Prefix)
}

/// The group of copies: a multicast address, or a prefix of them.
///
/// # Errors
///
/// As [`group`].
pub fn new_group(text: &str) -> Result<IpNet, Problem> {
    if text == "broadcast" {
        let message = "`broadcast` can't be the new group: copies go to a multicast group, or to \
                       one station (`unicast`)";
        return Err(Problem::new(Kind::GroupNotMulticast, message));
    }
    multicast(text, address_or_prefix(text)?)
}

fn multicast(text: &str, prefix: IpNet) -> Result<IpNet, Problem> {
    let (all, range) = match prefix {
        IpNet::V4(_) => (MULTICAST4, "224.0.0.0 to 239.255.255.255"),
        IpNet::V6(_) => (MULTICAST6, "ff00:: and up"),
    };
    if all.contains(&prefix) {
        return Ok(prefix);
    }
    if prefix.contains(&all) {
        let message = format!(
            "{} holds more than multicast groups: all of them are `{all}`",
            quote(text)
        );
        return Err(Problem::new(Kind::GroupPrefixTooWide, message));
    }
    let message = format!("{} is not a multicast group: {range} are", quote(text));
    Err(Problem::new(Kind::GroupNotMulticast, message))
}

/// An entry of `sources:`. It is shown as it is written: a prefix of full length as an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sources(pub IpNet);

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            self.0.addr().fmt(f)
        } else {
            self.0.fmt(f)
        }
    }
}

/// An entry of `sources:`: a unicast address, or a prefix.
///
/// # Errors
///
/// What is no address, or no address of a sender.
pub fn source(text: &str) -> Result<Sources, Problem> {
    let prefix = address_or_prefix(text)?;
    if prefix.prefix_len() == 0 {
        let message = format!(
            "the source {} is every address: leave the sources out to take any",
            quote(text)
        );
        return Err(Problem::new(Kind::SourceUnusable, message));
    }
    sender(text, prefix)?;
    Ok(Sources(prefix))
}

/// The source address of copies.
///
/// # Errors
///
/// What is no address, or no address of a sender.
pub fn new_source(text: &str) -> Result<IpAddr, Problem> {
    let address = single(text)?;
    sender(text, address.into())?;
    Ok(address)
}

fn sender(text: &str, prefix: IpNet) -> Result<(), Problem> {
    if MULTICAST4.contains(&prefix) || MULTICAST6.contains(&prefix) {
        let message = format!(
            "the source {} is a multicast group: a source is the unicast address of a sender",
            quote(text)
        );
        return Err(Problem::new(Kind::SourceIsMulticast, message));
    }
    let Some(unusable) = unusable(prefix) else {
        return Ok(());
    };
    let message = format!("the source {} is {unusable}", quote(text));
    Err(Problem::new(Kind::SourceUnusable, message))
}

/// Why no frame on a link comes from these addresses, or goes to them.
fn unusable(prefix: IpNet) -> Option<&'static str> {
    let address = prefix.addr();
    let exact = prefix.prefix_len() == prefix.max_prefix_len();
    if exact && address.is_unspecified() {
        return Some("the unspecified address: to mean any, leave it out");
    }
    if address.is_loopback() && (exact || prefix.prefix_len() >= 8) {
        return Some("a loopback address, which no frame on a link carries");
    }
    let broadcast = exact && address == IpAddr::V4(Ipv4Addr::BROADCAST);
    broadcast.then_some("the broadcast address, which is no station's")
}

/// The station that copies go to.
///
/// # Errors
///
/// What is no address, or [`Kind::NotUnicast`].
pub fn unicast(text: &str) -> Result<IpAddr, Problem> {
    station(text, "unicast", "for a multicast group it would be `group`")
}

/// The router through which a station is reached.
///
/// # Errors
///
/// As [`unicast`].
pub fn gateway(text: &str) -> Result<IpAddr, Problem> {
    station(text, "gateway", "a gateway is a router on the link")
}

fn station(text: &str, field: &str, hint: &str) -> Result<IpAddr, Problem> {
    let address = single(text)?;
    let wrong = if address.is_multicast() {
        format!("a multicast group: {hint}")
    } else {
        match unusable(address.into()) {
            Some(wrong) => wrong.to_owned(),
            None => return Ok(address),
        }
    };
    let message = format!(
        "{} is {wrong}; `{field}` is the address of one station",
        quote(text)
    );
    Err(Problem::new(Kind::NotUnicast, message))
}

/// An address, and no prefix that holds others.
fn single(text: &str) -> Result<IpAddr, Problem> {
    let prefix = address_or_prefix(text)?;
    if prefix.prefix_len() == prefix.max_prefix_len() {
        return Ok(prefix.addr());
    }
    let message = format!(
        "{} is a prefix: a single address such as `{}` is wanted here",
        quote(text),
        prefix.hosts().next().unwrap_or(prefix.addr())
    );
    Err(Problem::new(Kind::NotOneAddress, message))
}

/// An address as the prefix of its full length, or a prefix without host bits.
fn address_or_prefix(text: &str) -> Result<IpNet, Problem> {
    let Some((address, length)) = text.split_once('/') else {
        return Ok(address(text)?.into());
    };
    let address = self::address(address)?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    let length = length.parse().ok().filter(|_| digits);
    let Some(prefix) = length.and_then(|length| IpNet::new(address, length).ok()) else {
        let message = format!(
            "{} has no prefix length that can be: 0 to {width} is right",
            quote(text)
        );
        return Err(Problem::new(Kind::PrefixLength, message));
    };
    let right = prefix.trunc();
    if right.addr() == address {
        return Ok(right);
    }
    let message = format!(
        "the prefix {} has bits set beyond its length: write `{right}`, or `{address}` for this \
         address alone",
        quote(text)
    );
    Err(Problem::new(Kind::HostBits, message))
}

/// An address of either family, or why it is none.
fn address(text: &str) -> Result<IpAddr, Problem> {
    let (kind, message) = match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if let Some(v4) = v6.to_ipv4_mapped() => (
            Kind::MappedAddress,
            format!(
                "{} is an IPv4 address written as IPv6: write `{v4}`",
                quote(text)
            ),
        ),
        Ok(address) => return Ok(address),
        Err(_) => mistake(text),
    };
    Err(Problem::new(kind, message))
}

/// What people write who know the address.
fn mistake(text: &str) -> (Kind, String) {
    let found = quote(text);
    if text.trim() != text {
        let message = format!("{found} is no IP address: write it without white space");
        return (Kind::NotAnAddress, message);
    }
    if let Some(right) = without_leading_zeros(text) {
        let message =
            format!("{found} has leading zeros, which some read as octal: write `{right}`");
        return (Kind::LeadingZeros, message);
    }
    if text.parse::<SocketAddr>().is_ok() {
        let message =
            format!("{found} is an address with a port: the port goes into a field of its own");
        return (Kind::AddressWithPort, message);
    }
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    if let Some(inner) = inner.filter(|inner| inner.parse::<IpAddr>().is_ok()) {
        let message = format!("{found} has brackets: write `{inner}`, in quotes");
        return (Kind::Brackets, message);
    }
    if let Some((address, link)) = text.split_once('%')
        && address.parse::<IpAddr>().is_ok()
    {
        let message = format!(
            "{found} names a link: write `{address}`, {} goes into `from`",
            quote(link)
        );
        return (Kind::AddressWithLink, message);
    }
    let mut parts = text.split([',', '-', ' ']).filter(|part| !part.is_empty());
    if text.contains([',', '-', ' ']) && parts.all(|part| part.parse::<IpAddr>().is_ok()) {
        let message = format!("{found} is not one address: a list is `[239.1.1.1, 239.1.1.2]`");
        return (Kind::SeveralAddresses, message);
    }
    if is_mac(text) {
        let message = format!(
            "{found} is a MAC address: an IP address such as `239.1.1.1` or `ff02::fb` is wanted"
        );
        return (Kind::MacAddress, message);
    }
    let message = format!(
        "{found} is no IP address: one such as `239.1.1.1` or `ff02::fb` is wanted, names are not \
         looked up"
    );
    (Kind::NotAnAddress, message)
}

fn without_leading_zeros(text: &str) -> Option<Ipv4Addr> {
    let mut right = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut right {
        let part = parts.next()?;
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let shorter = part.trim_start_matches('0');
        *octet = match shorter {
            "" if digits => 0,
            _ if digits => shorter.parse().ok()?,
            _ => return None,
        };
    }
    parts.next().is_none().then(|| right.into())
}

fn is_mac(text: &str) -> bool {
    let octet = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    text.split([':', '-']).count() == 6 && text.split([':', '-']).all(octet)
}

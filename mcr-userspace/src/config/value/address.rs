//! Groups and sources.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::config::{
    model::GroupMatch,
    problem::{Kind, Problem, quote},
};

/// A group: a multicast address, or a prefix that holds no other.
///
/// # Errors
///
/// What is no address, no multicast address, or (not in force yet) a wider prefix or `broadcast`.
pub fn group(text: &str) -> Result<GroupMatch, Problem> {
    if text == "broadcast" {
        return Err(Problem::not_in_force("`broadcast`"));
    }
    let (address, prefix) = address_or_prefix(text)?;
    if address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        let message = format!(
            "{} is the broadcast address, not a multicast group: `broadcast` will be the word for \
             it, but is not in force in this version yet",
            quote(text)
        );
        return Err(Problem::new(Kind::GroupIsBroadcast, message));
    }
    let Some(group) = GroupMatch::exact(address) else {
        let range = match address {
            IpAddr::V4(_) => "224.0.0.0 to 239.255.255.255",
            IpAddr::V6(_) => "ff00:: and up",
        };
        let message = format!("{} is not a multicast group: {range} are", quote(text));
        return Err(Problem::new(Kind::GroupNotMulticast, message));
    };
    exact(text, prefix, "group")?;
    Ok(group)
}

/// A source: a unicast address, or a prefix that holds no other.
///
/// # Errors
///
/// What is no address, no address of a sender, or (not in force yet) a wider prefix.
pub fn source(text: &str) -> Result<IpAddr, Problem> {
    let (address, prefix) = address_or_prefix(text)?;
    exact(text, prefix, "source")?;
    let unusable = if address.is_multicast() {
        let message = format!(
            "the source {} is a multicast group: a source is the unicast address of a sender",
            quote(text)
        );
        return Err(Problem::new(Kind::SourceIsMulticast, message));
    } else if address.is_unspecified() {
        "the unspecified address: leave the sources out to take any"
    } else if address.is_loopback() {
        "a loopback address, which no frame on a link comes from"
    } else if address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        "the broadcast address, which no frame comes from"
    } else {
        return Ok(address);
    };
    let message = format!("the source {} is {unusable}", quote(text));
    Err(Problem::new(Kind::SourceUnusable, message))
}

/// Refuses a prefix that holds more than one address.
fn exact(text: &str, prefix: Option<u8>, what: &str) -> Result<(), Problem> {
    match prefix {
        None => Ok(()),
        Some(_) => Err(Problem::not_in_force(&format!(
            "the prefix {} as a {what} (an exact address is)",
            quote(text)
        ))),
    }
}

/// An address, and the length of its prefix unless it is as long as the address.
fn address_or_prefix(text: &str) -> Result<(IpAddr, Option<u8>), Problem> {
    let Some((address, length)) = text.split_once('/') else {
        return Ok((address(text)?, None));
    };
    let address = self::address(address)?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    let length = match length.parse::<u8>() {
        Ok(length) if digits && length <= width => length,
        _ => {
            let message = format!(
                "{} has no prefix length that can be: 0 to {width} is right",
                quote(text)
            );
            return Err(Problem::new(Kind::PrefixLength, message));
        }
    };
    if length == width {
        return Ok((address, None));
    }
    let network = network(address, length);
    if network != address {
        let message = format!(
            "the prefix {} has bits set beyond its length: write `{network}/{length}`, or \
             `{address}` for this address alone",
            quote(text)
        );
        return Err(Problem::new(Kind::HostBits, message));
    }
    Ok((address, Some(length)))
}

/// The address with all bits beyond the prefix cleared.
fn network(address: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
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

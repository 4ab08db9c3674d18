//! A group and port as the user writes them: `239.1.1.1:5000`, `[ff3e::1]:5000`,
//! `[ff02::fb%eth0]:5353`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use thiserror::Error;

/// A multicast group, a UDP port and, if it was written behind a `%`, the interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    address: IpAddr,
    port: u16,
    zone: Option<String>,
}

/// What is wrong with a group.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GroupError {
    /// No port behind the address.
    #[error("`{0}` has no port; write it as 239.1.1.1:5000 or [ff3e::1]:5000")]
    NoPort(String),
    /// An IPv6 address that is not in brackets.
    #[error("an IPv6 group goes in brackets, followed by the port: [ff3e::1]:5000")]
    NoBrackets,
    /// Not an address of either family.
    #[error("`{0}` is not an IPv4 or IPv6 address")]
    Address(String),
    /// Not a UDP port.
    #[error("`{0}` is not a UDP port, which is a number from 1 to 65535")]
    Port(String),
    /// An address that is not a group.
    #[error(
        "{0} is not a multicast group: groups are 224.0.0.0 to 239.255.255.255, and IPv6 addresses that begin with ff"
    )]
    Unicast(IpAddr),
    /// An interface behind an IPv4 address, or an empty one.
    #[error(
        "`%` is followed by an interface and stands behind an IPv6 group: [ff02::fb%eth0]:5353"
    )]
    Zone,
}

impl Group {
    /// The group.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The UDP port, never 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The interface written with the group.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// The socket address on the interface `index` (0: left to the kernel), which IPv6 carries as
    /// the scope (RFC 4007, section 11).
    #[must_use]
    pub fn socket_address(&self, index: u32) -> SocketAddr {
        match self.address {
            IpAddr::V4(address) => SocketAddr::from((address, self.port)),
            IpAddr::V6(address) => {
                SocketAddrV6::new(address, self.port, 0, scope(address, index)).into()
            }
        }
    }
}

/// The kernel wants a scope for interface- and link-local groups only (RFC 4291, section 2.7).
fn scope(address: Ipv6Addr, index: u32) -> u32 {
    if address.octets()[1] & 0x0f <= 2 {
        index
    } else {
        0
    }
}

impl FromStr for Group {
    type Err = GroupError;

    fn from_str(text: &str) -> Result<Self, GroupError> {
        let (address, zone, port) = if let Some(rest) = text.strip_prefix('[') {
            let (inside, port) = rest
                .split_once("]:")
                .ok_or_else(|| GroupError::NoPort(text.to_owned()))?;
            let (address, zone) = match inside.split_once('%') {
                Some((_, "")) => return Err(GroupError::Zone),
                Some((address, zone)) => (address, Some(zone.to_owned())),
                None => (inside, None),
            };
            let parsed =
                Ipv6Addr::from_str(address).map_err(|_| GroupError::Address(address.to_owned()))?;
            (IpAddr::V6(parsed), zone, port)
        } else {
            let (address, port) = plain(text)?;
            (IpAddr::V4(address), None, port)
        };
        if !address.is_multicast() {
            return Err(GroupError::Unicast(address));
        }
        match port.parse() {
            Ok(0) | Err(_) => Err(GroupError::Port(port.to_owned())),
            Ok(port) => Ok(Self {
                address,
                port,
                zone,
            }),
        }
    }
}

fn plain(text: &str) -> Result<(Ipv4Addr, &str), GroupError> {
    if text.matches(':').count() > 1 {
        return Err(GroupError::NoBrackets);
    }
    let (address, port) = text
        .split_once(':')
        .ok_or_else(|| GroupError::NoPort(text.to_owned()))?;
    if address.contains('%') {
        return Err(GroupError::Zone);
    }
    let parsed =
        Ipv4Addr::from_str(address).map_err(|_| GroupError::Address(address.to_owned()))?;
    Ok((parsed, port))
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, &self.zone) {
            (IpAddr::V4(address), _) => write!(f, "{address}:{}", self.port),
            (IpAddr::V6(address), None) => write!(f, "[{address}]:{}", self.port),
            (IpAddr::V6(address), Some(zone)) => write!(f, "[{address}%{zone}]:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_families_and_zones_are_read() {
        for text in [
            "239.1.1.1:5000",
            "224.0.0.251:5353",
            "[ff3e::1]:5000",
            "[ff02::fb%br0]:5353",
        ] {
            assert_eq!(text.parse::<Group>().unwrap().to_string(), text);
        }
        let mdns: Group = "[ff02::fb%br0]:5353".parse().unwrap();
        assert_eq!(mdns.zone(), Some("br0"));
        assert_eq!(mdns.socket_address(7).to_string(), "[ff02::fb%7]:5353");
        let wide: Group = "[ff3e::1]:5000".parse().unwrap();
        assert_eq!(wide.socket_address(7).to_string(), "[ff3e::1]:5000");
    }

    #[test]
    fn each_mistake_has_its_sentence() {
        let no_port = |text: &str| GroupError::NoPort(text.to_owned());
        for (text, error) in [
            ("10.0.0.1:5000", GroupError::Unicast([10, 0, 0, 1].into())),
            (
                "[2001:db8::1]:5000",
                GroupError::Unicast("2001:db8::1".parse().unwrap()),
            ),
            ("239.1.1.1", no_port("239.1.1.1")),
            ("[ff3e::1]", no_port("[ff3e::1]")),
            ("", no_port("")),
            ("ff3e::1:5000", GroupError::NoBrackets),
            ("239.1.1.1:0", GroupError::Port("0".to_owned())),
            ("239.1.1.1:65536", GroupError::Port("65536".to_owned())),
            ("239.1.1.1:", GroupError::Port(String::new())),
            ("239.1.1:5000", GroupError::Address("239.1.1".to_owned())),
            (
                "[239.1.1.1]:5000",
                GroupError::Address("239.1.1.1".to_owned()),
            ),
            ("239.1.1.1%eth0:5000", GroupError::Zone),
            ("[ff02::fb%]:5353", GroupError::Zone),
        ] {
            assert_eq!(text.parse::<Group>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(low in any::<[u8; 15]>(), v6 in any::<bool>(), port in 1..=u16::MAX) {
            let group = Group {
                address: if v6 {
                    let mut octets = [0xff; 16];
                    octets[1..].copy_from_slice(&low);
                    IpAddr::from(octets)
                } else {
                    IpAddr::from([0xe0 | low[0] & 0x0f, low[1], low[2], low[3]])
                },
                port,
                zone: None,
            };
            prop_assert_eq!(group.to_string().parse::<Group>(), Ok(group));
        }

        #[test]
        fn nothing_panics(text in "\\PC*") {
            let _ = text.parse::<Group>();
        }
    }
}

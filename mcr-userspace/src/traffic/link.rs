//! The interface a sender or receiver uses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::SockaddrStorage;

use super::error::Error;
use super::group::Group;

/// An interface of this network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its index, never 0.
    pub index: u32,
}

impl Link {
    /// Finds the interface by its name or one of its alternative names.
    pub fn find(name: &str) -> Result<Self, Error> {
        match if_nametoindex(name) {
            Ok(index) => Ok(Self {
                name: name.to_owned(),
                index,
            }),
            Err(Errno::ENODEV | Errno::ENXIO | Errno::ENAMETOOLONG | Errno::EINVAL) => {
                Err(Error::NoLink {
                    name: name.to_owned(),
                })
            }
            Err(error) => Err(Error::os(format!("look up the interface `{name}`"))(error)),
        }
    }

    /// The interface the user named, behind the group or with `option`, or none.
    pub fn named(
        group: &Group,
        link: Option<&str>,
        option: &'static str,
    ) -> Result<Option<Self>, Error> {
        match (group.zone(), link) {
            (Some(zone), Some(link)) if zone != link => Err(Error::TwoLinks {
                group: group.clone(),
                zone: zone.to_owned(),
                option,
                link: link.to_owned(),
            }),
            (Some(name), _) | (None, Some(name)) => Self::find(name).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// The interface the routing table names for the group, mostly that of the default route.
    pub fn routed(group: &Group, option: &'static str) -> Result<Self, Error> {
        let no_route = || Error::NoRoute {
            group: group.clone(),
            option,
        };
        let local = local_address_towards(group).map_err(|_| no_route())?;
        let addresses = getifaddrs().map_err(Error::os("list the addresses of this host"))?;
        for interface in addresses {
            if interface.address.as_ref().and_then(ip) == Some(local) {
                return Self::find(&interface.interface_name);
            }
        }
        Err(no_route())
    }
}

/// Connecting a UDP socket sends nothing; it looks up the route and the source address.
fn local_address_towards(group: &Group) -> io::Result<IpAddr> {
    let any = match group.address() {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let probe = UdpSocket::bind(any)?;
    probe.connect(group.socket_address(0))?;
    Ok(probe.local_addr()?.ip())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(v4.ip().into()),
        (None, Some(v6)) => Some(v6.ip().into()),
        (None, None) => None,
    }
}

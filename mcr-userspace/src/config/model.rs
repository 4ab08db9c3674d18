//! A checked rule file. Whoever holds one of these values holds something that makes sense.

use std::{collections::BTreeSet, fmt, net::IpAddr, num::NonZeroU16, path::PathBuf};

use super::diagnostic::Place;

/// A rule file without errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFile {
    /// Who makes the copies.
    pub datapath: DatapathChoice,
    /// Where the control socket is to be (`control: {socket: …}`); `None`: its usual place.
    pub control: Option<PathBuf>,
    /// The relays, in the order of the file. Never empty; names are unique.
    pub relays: Vec<Relay>,
}

/// The value of `datapath:`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DatapathChoice {
    /// The best one there is.
    #[default]
    Auto,
    /// The TC program.
    Tc,
    /// Packet sockets.
    AfPacket,
}

/// One relay: frames that arrive on one of `from` and match go to every one of `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// Its name, unique in the file.
    pub name: String,
    /// Where it stands in the rule file; `None` if it was given otherwise.
    pub place: Option<Place>,
    /// Ingress links. Never empty, no duplicates.
    pub from: Vec<LinkSelector>,
    /// Egress links. Never empty, no duplicates. A link may also be in `from`; a frame never
    /// goes back to its own ingress.
    pub to: Vec<LinkSelector>,
    /// Groups. Never empty.
    pub groups: BTreeSet<Group>,
    /// Sources; empty: any.
    pub sources: BTreeSet<IpAddr>,
    /// UDP destination ports; empty: any.
    pub ports: BTreeSet<NonZeroU16>,
    /// What happens to the TTL or hop limit of copies.
    pub ttl: Ttl,
    /// Which source address copies carry.
    pub source_mac: SourceMac,
    /// What happens to the frame on this host.
    pub local: Local,
    /// Whether the groups are joined on the ingress links.
    pub join: bool,
}

/// A name that stands for a link. Other ways to select one will join it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkSelector {
    /// By its name or one of its alternative names.
    Name(LinkName),
}

impl fmt::Display for LinkSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// The name of a link, or an alternative name: 1 to 127 bytes, no white space, no slash or
/// colon (`dev_valid_name` in `net/core/dev.c`; `ALTIFNAMSIZ` in `include/uapi/linux/if.h`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkName(String);

impl LinkName {
    /// Longest alternative name, in bytes.
    pub const LONGEST: usize = 127;

    /// The name, if it can be one.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let valid = (1..=Self::LONGEST).contains(&name.len())
            && name != "."
            && name != ".."
            && !name
                .chars()
                .any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
        valid.then(|| Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A multicast address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(IpAddr);

impl Group {
    /// The group, if the address is one.
    #[must_use]
    pub fn new(address: IpAddr) -> Option<Self> {
        address.is_multicast().then_some(Self(address))
    }

    /// The address.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.0
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The value of `ttl:`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ttl {
    /// Left as it is.
    #[default]
    Keep,
    /// One less; a frame with 1 is not relayed.
    Decrement,
    /// Set to this value, 1 to 255.
    Set(u8),
}

/// The value of `source_mac:`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SourceMac {
    /// `relay` on software links, `egress` on physical ones.
    #[default]
    Auto,
    /// The address of this mcr instance.
    Relay,
    /// The egress link's own address.
    Egress,
    /// The address the frame came with.
    Keep,
}

/// The value of `local:`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Local {
    /// The host still sees the frame.
    #[default]
    Keep,
    /// The host does not see it.
    Drop,
}

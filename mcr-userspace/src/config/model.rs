//! A checked rule file. Whoever holds one of these values holds something that makes sense.

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    num::{NonZeroU16, NonZeroU64},
    path::PathBuf,
};

use ipnet::IpNet;

use super::diagnostic::Place;

mod frames;

pub use self::frames::{Frames, MacPrefix};

/// A rule file without errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFile {
    /// Who makes the copies.
    pub datapath: DatapathChoice,
    /// How much the tables hold.
    pub limits: Limits,
    /// Where the control socket is to be (`control: {socket: …}`); `None`: its usual place.
    pub control: Option<PathBuf>,
    /// The relays, in the order of the file. Never empty; names are unique.
    pub relays: Vec<Relay>,
}

impl RuleFile {
    /// A file that says nothing but what its relays are.
    #[must_use]
    pub fn of(relays: Vec<Relay>) -> Self {
        Self {
            datapath: DatapathChoice::default(),
            limits: Limits::default(),
            control: None,
            relays,
        }
    }
}

/// The value of `datapath:`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DatapathChoice {
    /// The best one there is.
    #[default]
    Auto,
    /// The XDP program, and the TC program for single frames that it can't serve.
    Xdp,
    /// The TC program.
    Tc,
    /// Packet sockets.
    AfPacket,
}

/// The value of `limits:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Routes of each address family.
    pub routes: u32,
    /// Ingress links.
    pub links: u32,
}

impl Limits {
    /// The most routes that can be wanted: a map of them takes some 2 GiB.
    pub const MOST_ROUTES: u32 = 1 << 24;
    /// The most ingress links that can be wanted: counters of each take a few hundred bytes a CPU.
    pub const MOST_LINKS: u32 = 1 << 16;

    /// How many ingress links there are room for, so that each can be replaced by another one in
    /// a single change.
    #[must_use]
    pub const fn link_room(&self) -> u32 {
        self.links.saturating_mul(2)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            routes: mcr_common::table::MAX_ROUTES,
            links: mcr_common::table::MAX_LINKS,
        }
    }
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
    /// Ways out. Never empty, no duplicates. A link may also be in `from`; a frame never
    /// goes back to its own ingress.
    pub to: Vec<Way>,
    /// Which frames.
    pub matches: Match,
    /// Which VLANs. Never empty.
    pub vlans: BTreeSet<VlanMatch>,
    /// What happens to the frame on this host.
    pub local: Local,
    /// How many frames or bits a second, over all ingress links.
    pub limit: Option<Limit>,
    /// Whether frames count as arriving on an ingress link that this host itself sends there.
    pub host_frames: bool,
    /// Whether the groups are joined on the ingress links.
    pub join: bool,
}

/// Which frames a relay takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    /// IP packets.
    Packets(Packets),
    /// Whatever else is sent to a group address of layer 2.
    Frames(Frames),
}

/// Which IP packets a relay takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Packets {
    /// Where to. Never empty.
    pub groups: BTreeSet<GroupMatch>,
    /// Prefixes of sources, without host bits; empty: any. Every group has a source of its
    /// family, and every source a group, if there are sources.
    pub sources: BTreeSet<IpNet>,
    /// UDP destination ports; empty: any. Empty unless the protocol is UDP.
    pub ports: BTreeSet<PortRange>,
    /// Which protocols.
    pub protocol: ProtocolMatch,
}

/// An entry of `groups:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupMatch {
    /// All groups of a prefix, which lies within the multicast addresses and has no host bits; a
    /// single group is a prefix of full length.
    Prefix(IpNet),
    /// IPv4 packets to 255.255.255.255 or the directed broadcast address of the ingress link.
    Broadcast,
}

impl GroupMatch {
    /// A single group, if the address is one.
    #[must_use]
    pub fn exact(address: IpAddr) -> Option<Self> {
        address.is_multicast().then(|| Self::Prefix(address.into()))
    }

    /// Whether it is of IPv4.
    #[must_use]
    pub const fn is_ipv4(&self) -> bool {
        matches!(self, Self::Broadcast | Self::Prefix(IpNet::V4(_)))
    }
}

impl fmt::Display for GroupMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) if prefix.prefix_len() == prefix.max_prefix_len() => {
                prefix.addr().fmt(f)
            }
            Self::Prefix(prefix) => prefix.fmt(f),
            Self::Broadcast => f.write_str("broadcast"),
        }
    }
}

/// Ports from `first` to `last`, both included; `first` is not above `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The lowest.
    pub first: NonZeroU16,
    /// The highest.
    pub last: NonZeroU16,
}

impl From<NonZeroU16> for PortRange {
    fn from(port: NonZeroU16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return self.first.fmt(f);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// The value of `protocol:`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProtocolMatch {
    /// Every protocol but control traffic: IGMP, PIM, MLD, neighbour discovery, DHCP.
    Any,
    /// Those of these numbers, control traffic included where they name it. Never empty.
    Numbers(BTreeSet<u8>),
}

impl ProtocolMatch {
    /// UDP, the default.
    #[must_use]
    pub fn udp() -> Self {
        Self::Numbers([17].into())
    }
}

/// The value of `vlan:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VlanMatch {
    /// No tag, or VLAN ID 0.
    Untagged,
    /// This VLAN ID, 1 to 4094.
    Id(u16),
    /// Any VLAN ID, or none.
    Any,
}

impl fmt::Display for VlanMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untagged => f.write_str("untagged"),
            Self::Id(id) => id.fmt(f),
            Self::Any => f.write_str("any"),
        }
    }
}

/// The value of `limit:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Frames a second, up to [`Limit::LARGEST`]. Never 0.
    Frames(NonZeroU64),
    /// Bits a second, from the Ethernet header on, up to [`Limit::LARGEST`]. Never 0.
    Bits(NonZeroU64),
}

impl Limit {
    /// The largest, in frames or bits a second: more than any link carries.
    pub const LARGEST: u64 = 1_000_000_000_000;
}

/// A way out: a link, and the edits of the copies sent there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Way {
    /// The link.
    pub link: LinkSelector,
    /// The edits.
    pub edits: Edits,
}

/// What a copy has different from the frame it was made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edits {
    /// The source address of layer 2.
    pub source_mac: SourceMac,
    /// The TTL or hop limit.
    pub ttl: Ttl,
    /// The DSCP, 0 to 63.
    pub dscp: Option<u8>,
    /// The VLAN tag.
    pub vlan: Option<VlanEdit>,
    /// The group: the bits beyond the prefix are kept. Of the family and length of the one entry
    /// of `groups:`; never with `unicast`.
    pub group: Option<IpNet>,
    /// The UDP destination port.
    pub port: Option<NonZeroU16>,
    /// The source address, of the family of all groups.
    pub source: Option<IpAddr>,
    /// One station instead of the group.
    pub unicast: Option<Unicast>,
}

/// The value of an egress's `vlan:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VlanEdit {
    /// The outermost tag is taken off, if there is one.
    Untagged,
    /// The outermost tag gets this VLAN ID, 1 to 4094; a frame without a tag gets one.
    Id(u16),
}

/// A station that copies are addressed to, of the family of all groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unicast {
    /// Its address.
    pub address: IpAddr,
    /// The router on the egress link through which it is reached; `None`: it is on the link.
    pub gateway: Option<IpAddr>,
}

impl Unicast {
    /// Whose MAC address copies go to.
    #[must_use]
    pub fn next_hop(&self) -> IpAddr {
        self.gateway.unwrap_or(self.address)
    }
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

/// The value of `ttl:`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

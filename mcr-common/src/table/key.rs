//! What the tables are looked up by.

use core::net::{Ipv4Addr, Ipv6Addr};

/// An IPv4 address at a place of the decision tree: a group in a scope, or a source at a node.
/// For prefixes, the node's bits come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Key4 {
    node: u32,
    address: u32,
}

const _: () = assert!(size_of::<Key4>() == 8);

impl Key4 {
    /// This address at this node.
    #[must_use]
    #[inline(always)]
    pub fn new(node: u32, address: Ipv4Addr) -> Self {
        Self {
            node,
            address: u32::from_ne_bytes(address.octets()),
        }
    }

    /// The node.
    #[must_use]
    pub const fn node(&self) -> u32 {
        self.node
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address.to_ne_bytes().into()
    }
}

/// An IPv6 address at a place of the decision tree, as [`Key4`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Key6 {
    node: u32,
    address: [u8; 16],
}

const _: () = assert!(size_of::<Key6>() == 20);

impl Key6 {
    /// This address at this node.
    #[must_use]
    #[inline(always)]
    pub const fn new(node: u32, address: Ipv6Addr) -> Self {
        Self {
            node,
            address: address.octets(),
        }
    }

    /// The node.
    #[must_use]
    pub const fn node(&self) -> u32 {
        self.node
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> Ipv6Addr {
        self.address.into()
    }
}

/// A frame that is not IP, in a scope: its type, and a prefix of its destination address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FrameKey {
    node: u32,
    ethertype: u16,
    mac: [u8; 6],
}

const _: () = assert!(size_of::<FrameKey>() == 12);

impl FrameKey {
    /// The bits before those of the address.
    pub const BEFORE_MAC: u32 = 48;

    /// A frame of this type (0: any) to this address.
    #[must_use]
    #[inline(always)]
    pub const fn new(node: u32, ethertype: u16, mac: [u8; 6]) -> Self {
        Self {
            node,
            ethertype: ethertype.to_be(),
            mac,
        }
    }

    /// The node.
    #[must_use]
    pub const fn node(&self) -> u32 {
        self.node
    }

    /// The type; 0 stands for any.
    #[must_use]
    pub const fn ethertype(&self) -> u16 {
        u16::from_be(self.ethertype)
    }

    /// The destination address.
    #[must_use]
    pub const fn mac(&self) -> [u8; 6] {
        self.mac
    }
}

/// A VLAN of an ingress link, of what arrives there or of what the host itself sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct VlanKey {
    ingress: u32,
    vlan: u16,
    from_host: u16,
}

const _: () = assert!(size_of::<VlanKey>() == 8);

impl VlanKey {
    /// This VLAN ID (0: untagged; [`super::OTHER_VLANS`]: all that are not named) of the link with
    /// this interface index.
    #[must_use]
    #[inline(always)]
    pub const fn new(ingress: u32, vlan: u16, from_host: bool) -> Self {
        Self {
            ingress,
            vlan,
            from_host: from_host as u16,
        }
    }

    /// Interface index of the link.
    #[must_use]
    pub const fn ingress(&self) -> u32 {
        self.ingress
    }
}

/// What the fragments of one packet have in common (RFC 791 section 3.2, RFC 8200
/// section 4.5), in the VLAN and on the link they arrive on. IPv4 addresses are kept
/// IPv4-mapped; the protocol is a part of it in IPv4 only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FragmentKey {
    ingress: u32,
    identification: u32,
    source: [u8; 16],
    group: [u8; 16],
    vlan: u16,
    protocol: u8,
    from_host: u8,
}

const _: () = assert!(size_of::<FragmentKey>() == 44);

impl FragmentKey {
    /// The key of the fragments of an IPv4 packet that arrives at `place`.
    #[must_use]
    #[inline(always)]
    pub const fn v4(
        place: VlanKey,
        source: Ipv4Addr,
        group: Ipv4Addr,
        protocol: u8,
        identification: u32,
    ) -> Self {
        Self {
            protocol,
            ..Self::v6(
                place,
                source.to_ipv6_mapped(),
                group.to_ipv6_mapped(),
                identification,
            )
        }
    }

    /// The key of the fragments of an IPv6 packet that arrives at `place`.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "0 or 1")]
    pub const fn v6(
        place: VlanKey,
        source: Ipv6Addr,
        group: Ipv6Addr,
        identification: u32,
    ) -> Self {
        Self {
            ingress: place.ingress,
            identification,
            source: source.octets(),
            group: group.octets(),
            vlan: place.vlan,
            protocol: 0,
            from_host: place.from_host as u8,
        }
    }
}

#[cfg(feature = "user")]
mod pod {
    #![expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]

    use super::{FragmentKey, FrameKey, Key4, Key6, VlanKey};

    // SAFETY: repr(C), every field plain integers, and the size assertions above leave no room
    // for padding that is not a field.
    unsafe impl aya::Pod for Key4 {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Key6 {}
    // SAFETY: as above.
    unsafe impl aya::Pod for FrameKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for VlanKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for FragmentKey {}
}

//! What the tables are looked up by.

use core::net::{Ipv4Addr, Ipv6Addr};

/// The key of an IPv4 route. A source or port of zero stands for "any".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct RouteKey4 {
    ingress: u32,
    group: u32,
    source: u32,
    port: u16,
    padding: u16,
}

const _: () = assert!(size_of::<RouteKey4>() == 16);

impl RouteKey4 {
    /// The key of frames to `group` that arrive on the link with this interface index, from
    /// `source` (unspecified: any) to UDP port `port` (0: any).
    #[must_use]
    #[inline(always)]
    pub fn new(ingress: u32, group: Ipv4Addr, source: Ipv4Addr, port: u16) -> Self {
        Self {
            ingress,
            group: u32::from_ne_bytes(group.octets()),
            source: u32::from_ne_bytes(source.octets()),
            port: port.to_be(),
            padding: 0,
        }
    }

    /// Makes it the key of frames to this port (0: any).
    #[inline(always)]
    pub const fn set_port(&mut self, port: u16) {
        self.port = port.to_be();
    }

    /// Makes it the key of frames from any source.
    #[inline(always)]
    pub const fn any_source(&mut self) {
        self.source = 0;
    }

    /// Interface index of the ingress link.
    #[must_use]
    pub const fn ingress(&self) -> u32 {
        self.ingress
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> Ipv4Addr {
        self.group.to_ne_bytes().into()
    }

    /// The source; unspecified stands for any.
    #[must_use]
    pub fn source(&self) -> Ipv4Addr {
        self.source.to_ne_bytes().into()
    }

    /// The UDP destination port; 0 stands for any.
    #[must_use]
    pub const fn port(&self) -> u16 {
        u16::from_be(self.port)
    }
}

/// The key of an IPv6 route. A source or port of zero stands for "any".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct RouteKey6 {
    ingress: u32,
    group: [u8; 16],
    source: [u8; 16],
    port: u16,
    padding: u16,
}

const _: () = assert!(size_of::<RouteKey6>() == 40);

impl RouteKey6 {
    /// The key of frames to `group` that arrive on the link with this interface index, from
    /// `source` (unspecified: any) to UDP port `port` (0: any).
    #[must_use]
    #[inline(always)]
    pub const fn new(ingress: u32, group: Ipv6Addr, source: Ipv6Addr, port: u16) -> Self {
        Self {
            ingress,
            group: group.octets(),
            source: source.octets(),
            port: port.to_be(),
            padding: 0,
        }
    }

    /// Makes it the key of frames to this port (0: any).
    #[inline(always)]
    pub const fn set_port(&mut self, port: u16) {
        self.port = port.to_be();
    }

    /// Makes it the key of frames from any source.
    #[inline(always)]
    pub const fn any_source(&mut self) {
        self.source = [0; 16];
    }

    /// Interface index of the ingress link.
    #[must_use]
    pub const fn ingress(&self) -> u32 {
        self.ingress
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> Ipv6Addr {
        self.group.into()
    }

    /// The source; unspecified stands for any.
    #[must_use]
    pub fn source(&self) -> Ipv6Addr {
        self.source.into()
    }

    /// The UDP destination port; 0 stands for any.
    #[must_use]
    pub const fn port(&self) -> u16 {
        u16::from_be(self.port)
    }
}

/// What the fragments of one datagram have in common (RFC 791 section 3.2, RFC 8200
/// section 4.5), on the link they arrive on. IPv4 addresses are kept IPv4-mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FragmentKey {
    ingress: u32,
    identification: u32,
    source: [u8; 16],
    group: [u8; 16],
}

const _: () = assert!(size_of::<FragmentKey>() == 40);

impl FragmentKey {
    /// The key of an IPv4 datagram's fragments.
    #[must_use]
    #[inline(always)]
    pub const fn v4(ingress: u32, source: Ipv4Addr, group: Ipv4Addr, identification: u32) -> Self {
        Self {
            ingress,
            identification,
            source: source.to_ipv6_mapped().octets(),
            group: group.to_ipv6_mapped().octets(),
        }
    }

    /// The key of an IPv6 datagram's fragments.
    #[must_use]
    #[inline(always)]
    pub const fn v6(ingress: u32, source: Ipv6Addr, group: Ipv6Addr, identification: u32) -> Self {
        Self {
            ingress,
            identification,
            source: source.octets(),
            group: group.octets(),
        }
    }
}

#[cfg(feature = "user")]
mod pod {
    #![expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]

    use super::{FragmentKey, RouteKey4, RouteKey6};

    // SAFETY: repr(C), every field plain integers, and the size assertions above leave no room
    // for padding that is not a field.
    unsafe impl aya::Pod for RouteKey4 {}
    // SAFETY: as above.
    unsafe impl aya::Pod for RouteKey6 {}
    // SAFETY: as above.
    unsafe impl aya::Pod for FragmentKey {}
}

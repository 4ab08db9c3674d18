//! One way out: a link, and what copies sent there have different.

use core::net::IpAddr;

use crate::fan;

/// What happens to the TTL or hop limit of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HopEdit {
    /// Left as it is; 1 passes.
    Keep,
    /// One less; a frame with 0 or 1 is not copied.
    Decrement,
    /// Set to this value, 1 to 255.
    Set(u8),
}

/// What happens to the outermost VLAN tag of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VlanEdit {
    /// Left as it is.
    Keep,
    /// Taken off, if there is one.
    Pop,
    /// It gets this VLAN ID; a frame without a tag gets one.
    Set(u16),
}

/// A link and the edits of the copies sent there.
///
/// Addresses are edited under masks, so that all kinds of edits are done alike: bits that are not
/// in the mask are those of the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Egress {
    ifindex: u32,
    mtu: u32,
    flags: u16,
    /// VLAN ID.
    vlan: u16,
    /// UDP destination port, in network byte order.
    port: u16,
    hop: u8,
    dscp: u8,
    source_mac: [u8; 6],
    destination_mac: [u8; 6],
    destination_mac_mask: [u8; 6],
    padding: [u8; 2],
    /// Words of four bytes as they lie in a header; of IPv4, the first of this and of the two
    /// that follow.
    group: [u32; 4],
    group_mask: [u32; 4],
    source: [u32; 4],
    /// The router on the way to a station; zeros: there is none. It makes this egress another one.
    gateway: [u32; 4],
}

const _: () = assert!(size_of::<Egress>() == 100);

const SOURCE_MAC: u16 = 1;
const HOP_DECREMENT: u16 = 1 << 1;
const HOP_SET: u16 = 1 << 2;
const DSCP: u16 = 1 << 3;
const VLAN_POP: u16 = 1 << 4;
const VLAN_SET: u16 = 1 << 5;
const GROUP: u16 = 1 << 6;
const PORT: u16 = 1 << 7;
const SOURCE: u16 = 1 << 8;
/// Addresses are those of IPv6.
const V6: u16 = 1 << 9;
/// Copies go to one station.
const UNICAST: u16 = 1 << 10;
/// The MAC address of the station is known.
const RESOLVED: u16 = 1 << 11;
const DOWN: u16 = 1 << 12;
/// The link sends from its own address only.
const STRICT: u16 = 1 << 13;
/// It stands for a whole set.
const FAN: u16 = 1 << 14;

/// Edits of what the checksum of UDP covers.
const DATAGRAM: u16 = GROUP | PORT | SOURCE | UNICAST;
/// Edits of IP and UDP headers beside the TTL.
const HEADERS: u16 = DATAGRAM | DSCP;

impl Egress {
    /// Copies go to the link with this interface index if their IP packet has at most `mtu`
    /// bytes, from `source_mac` (`None`: the address they came with), with the TTL edited.
    #[must_use]
    pub fn new(ifindex: u32, mtu: u32, source_mac: Option<[u8; 6]>, hop: HopEdit) -> Self {
        let (mut flags, hop) = match hop {
            HopEdit::Keep => (0, 0),
            HopEdit::Decrement => (HOP_DECREMENT, 0),
            HopEdit::Set(value) => (HOP_SET, value),
        };
        if source_mac.is_some() {
            flags |= SOURCE_MAC;
        }
        Self {
            ifindex,
            mtu,
            flags,
            hop,
            source_mac: source_mac.unwrap_or_default(),
            ..Self::default()
        }
    }

    /// The same, but for a link that is up or down: one that is down gets no copies.
    #[must_use]
    pub const fn up(self, up: bool) -> Self {
        if up {
            self.without(DOWN)
        } else {
            self.with(DOWN)
        }
    }

    /// The same, but for a link that sends from no address but its own, as Wi-Fi cards do.
    #[must_use]
    pub const fn strict(self, strict: bool) -> Self {
        if strict {
            self.with(STRICT)
        } else {
            self.without(STRICT)
        }
    }

    /// The same with this DSCP, 0 to 63; the bits of congestion notification are left alone
    /// (RFC 3168 section 5).
    #[must_use]
    pub const fn dscp(mut self, dscp: u8) -> Self {
        self.dscp = dscp << 2;
        self.with(DSCP)
    }

    /// The same with an edit of the VLAN tag.
    #[must_use]
    pub const fn vlan(mut self, edit: VlanEdit) -> Self {
        self = self.without(VLAN_POP | VLAN_SET);
        self.vlan = 0;
        match edit {
            VlanEdit::Keep => self,
            VlanEdit::Pop => self.with(VLAN_POP),
            VlanEdit::Set(id) => {
                self.vlan = id;
                self.with(VLAN_SET)
            }
        }
    }

    /// The same for copies to another group: the first `length` bits are those of `group`, the
    /// others those of the group the frame was sent to.
    #[must_use]
    pub fn group(mut self, group: IpAddr, length: u8) -> Self {
        let mut mask = [0; 16];
        for (index, byte) in mask.iter_mut().enumerate() {
            let bits = usize::from(length).saturating_sub(index * 8).min(8);
            *byte = !(0xff_u16 >> bits).to_be_bytes()[1];
        }
        let mut bytes = widened(group);
        if group.is_ipv4() {
            mask[4..].fill(0);
        }
        bytes
            .iter_mut()
            .zip(&mask)
            .for_each(|(byte, mask)| *byte &= mask);
        self.group = words(bytes);
        self.group_mask = words(mask);
        // As the addresses of multicast are made, with the mask going the same way as the group
        // (RFC 1112 section 6.4, RFC 2464 section 7).
        let [_, b, c, d, ..] = bytes;
        let [_, f, g, h, ..] = mask;
        let [.., w, x, y, z] = bytes;
        let [.., s, t, u, v] = mask;
        (self.destination_mac, self.destination_mac_mask) = match group {
            IpAddr::V4(_) => (
                [0x01, 0x00, 0x5e, b & 0x7f, c, d],
                [0xff, 0xff, 0xff, f | 0x80, g, h],
            ),
            IpAddr::V6(_) => ([0x33, 0x33, w, x, y, z], [0xff, 0xff, s, t, u, v]),
        };
        self.of(group).without(UNICAST | RESOLVED).with(GROUP)
    }

    /// The same for copies to one station, whose MAC address, or that of the router on the way,
    /// is `mac`; while it is not known, there are none.
    #[must_use]
    pub fn unicast(mut self, station: IpAddr, mac: Option<[u8; 6]>) -> Self {
        self = self.group(station, 128).without(GROUP).with(UNICAST);
        self.destination_mac = mac.unwrap_or_default();
        self.destination_mac_mask = [0xff; 6];
        if mac.is_some() {
            self.with(RESOLVED)
        } else {
            self
        }
    }

    /// The egress that stands for all of a set, whose members are edited as this one is: the
    /// destination address says to a program at the link of ours which set it is ([`fan`]).
    #[must_use]
    pub fn fan(mut self, set: u32, mtu: u32) -> Self {
        self.ifindex = 0;
        self.mtu = mtu;
        self.destination_mac = fan::address(set);
        self.destination_mac_mask = [0xff; 6];
        self.with(FAN)
    }

    /// The same at another link.
    #[must_use]
    pub const fn at(mut self, ifindex: u32) -> Self {
        self.ifindex = ifindex;
        self
    }

    /// The same for a station behind this router, whose MAC address copies get.
    #[must_use]
    pub fn through(mut self, gateway: IpAddr) -> Self {
        self.gateway = words(widened(gateway));
        self
    }

    /// The same with this UDP destination port.
    #[must_use]
    pub const fn port(mut self, port: u16) -> Self {
        self.port = port.to_be();
        self.with(PORT)
    }

    /// The same with this source address.
    #[must_use]
    pub fn source(mut self, source: IpAddr) -> Self {
        self.source = words(widened(source));
        self.of(source).with(SOURCE)
    }

    /// What makes this egress the one it is: all but what the kernel says of its link and its
    /// station, which changes without the relay being another.
    #[must_use]
    pub fn identity(&self) -> Self {
        let mut identity = self.without(DOWN | RESOLVED);
        identity.mtu = 0;
        if self.has(UNICAST) {
            identity.destination_mac = [0; 6];
        }
        identity
    }

    /// What copies have different, whatever the link is and the largest packet it takes.
    #[must_use]
    pub const fn edits(&self) -> Self {
        let mut edits = self.without(DOWN);
        edits.ifindex = 0;
        edits.mtu = 0;
        edits
    }

    /// Whether the link is up.
    #[must_use]
    #[inline(always)]
    pub const fn is_up(&self) -> bool {
        !self.has(DOWN)
    }

    /// Whether the link sends from its own address only.
    #[must_use]
    #[inline(always)]
    pub const fn is_strict(&self) -> bool {
        self.has(STRICT)
    }

    /// Whether it stands for a whole set.
    #[must_use]
    #[inline(always)]
    pub const fn is_fan(&self) -> bool {
        self.has(FAN)
    }

    /// The id of the set it stands for.
    #[must_use]
    pub const fn fan_set(&self) -> Option<u32> {
        if self.is_fan() {
            fan::set(self.destination_mac)
        } else {
            None
        }
    }

    /// Whether copies go to one station.
    #[must_use]
    pub const fn is_unicast(&self) -> bool {
        self.has(UNICAST)
    }

    /// Whether copies can be addressed: to a group, or to a station whose MAC address is known.
    #[must_use]
    #[inline(always)]
    pub const fn is_addressed(&self) -> bool {
        self.flags & (UNICAST | RESOLVED) != UNICAST
    }

    /// Interface index of the link.
    #[must_use]
    #[inline(always)]
    pub const fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// The largest IP packet the link takes, in bytes.
    #[must_use]
    #[inline(always)]
    pub const fn mtu(&self) -> u32 {
        self.mtu
    }

    /// The source address of copies; `None`: the one they came with.
    #[must_use]
    #[inline(always)]
    pub const fn source_mac(&self) -> Option<[u8; 6]> {
        if self.has(SOURCE_MAC) {
            Some(self.source_mac)
        } else {
            None
        }
    }

    /// The destination address of copies, and the bits of it that count, if it is not made
    /// from the group the frame was sent to alone.
    #[must_use]
    #[inline(always)]
    pub const fn destination_mac(&self) -> Option<(&[u8; 6], &[u8; 6])> {
        if self.flags & (GROUP | UNICAST | FAN) != 0 {
            Some((&self.destination_mac, &self.destination_mac_mask))
        } else {
            None
        }
    }

    /// What happens to the TTL or hop limit.
    #[must_use]
    #[inline(always)]
    pub const fn hop(&self) -> HopEdit {
        if self.flags & (HOP_DECREMENT | HOP_SET) == 0 {
            HopEdit::Keep
        } else if self.has(HOP_DECREMENT) {
            HopEdit::Decrement
        } else {
            HopEdit::Set(self.hop)
        }
    }

    /// What happens to the VLAN tag.
    #[must_use]
    #[inline(always)]
    pub const fn vlan_edit(&self) -> VlanEdit {
        if self.flags & (VLAN_POP | VLAN_SET) == 0 {
            VlanEdit::Keep
        } else if self.has(VLAN_POP) {
            VlanEdit::Pop
        } else {
            VlanEdit::Set(self.vlan)
        }
    }

    /// Whether anything changes beside MAC addresses and TTL.
    #[must_use]
    #[inline(always)]
    pub const fn edits_more(&self) -> bool {
        self.flags & (HEADERS | VLAN_POP | VLAN_SET) != 0
    }

    /// Whether anything changes in IP and UDP headers beside the TTL.
    #[must_use]
    #[inline(always)]
    pub const fn edits_headers(&self) -> bool {
        self.flags & HEADERS != 0
    }

    /// Whether anything changes that the checksum of UDP covers.
    #[must_use]
    #[inline(always)]
    pub const fn edits_datagram(&self) -> bool {
        self.flags & DATAGRAM != 0
    }

    /// The upper six bits of the byte with the DSCP, if they change.
    #[must_use]
    #[inline(always)]
    pub const fn traffic_class(&self) -> Option<u8> {
        if self.has(DSCP) {
            Some(self.dscp)
        } else {
            None
        }
    }

    /// The UDP destination port in network byte order, if it changes.
    #[must_use]
    #[inline(always)]
    pub const fn new_port(&self) -> Option<[u8; 2]> {
        if self.has(PORT) {
            Some(self.port.to_ne_bytes())
        } else {
            None
        }
    }

    /// The destination address of copies, and the bits of it that count, if the frame is IPv6 or
    /// not as this egress is.
    #[must_use]
    #[inline(always)]
    pub const fn destination(&self, v6: bool) -> Option<(&[u32; 4], &[u32; 4])> {
        if self.flags & (GROUP | UNICAST) != 0 && self.has(V6) == v6 {
            Some((&self.group, &self.group_mask))
        } else {
            None
        }
    }

    /// The source address of copies, if it changes and the frame is IPv6 or not as this egress
    /// is.
    #[must_use]
    #[inline(always)]
    pub const fn new_source(&self, v6: bool) -> Option<&[u32; 4]> {
        if self.has(SOURCE) && self.has(V6) == v6 {
            Some(&self.source)
        } else {
            None
        }
    }

    #[inline(always)]
    const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    const fn with(mut self, flags: u16) -> Self {
        self.flags |= flags;
        self
    }

    const fn without(mut self, flags: u16) -> Self {
        self.flags &= !flags;
        self
    }

    const fn of(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => self.without(V6),
            IpAddr::V6(_) => self.with(V6),
        }
    }
}

/// An address with zeros behind it.
fn widened(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96).to_be_bytes(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Words of four bytes as they lie in memory.
fn words(bytes: [u8; 16]) -> [u32; 4] {
    let (chunks, _) = bytes.as_chunks();
    core::array::from_fn(|index| u32::from_ne_bytes(chunks[index]))
}

#[cfg(feature = "user")]
mod pod {
    #![expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]

    use super::Egress;

    // SAFETY: repr(C), every field plain integers, and the size assertion above leaves no room
    // for padding that is not a field.
    unsafe impl aya::Pod for Egress {}
}

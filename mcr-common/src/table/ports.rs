//! Deciding by protocol and port.

use super::{Target, Way};

/// What a relay can ask for beyond addresses, as one number: the IP protocol and, of UDP, the
/// destination port; of ICMPv6, whether it is control traffic.
///
/// Ports of one protocol follow one another, so that a range of ports is a range of selectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Selector(u32);

impl Selector {
    /// The lowest there is.
    pub const FIRST: Self = Self(0);
    /// The highest there is.
    pub const LAST: Self = Self::of(0xff, 0xffff);

    /// Protocol number of IGMP.
    pub const IGMP: u8 = 2;
    /// Protocol number of UDP.
    pub const UDP: u8 = 17;
    /// Protocol number of ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// Protocol number of PIM.
    pub const PIM: u8 = 103;

    /// MLD, router and neighbour discovery.
    pub const ICMPV6_CONTROL: Self = Self::of(Self::ICMPV6, 1);

    /// Everything that counts as control traffic, lowest first: IGMP, DHCP (RFC 2131 section
    /// 4.1), DHCPv6 (RFC 8415 section 7.2), ICMPv6 control traffic and PIM. The ends belong to
    /// the ranges.
    pub const CONTROL: [(Self, Self); 5] = [
        (Self::of(Self::IGMP, 0), Self::of(Self::IGMP, 0xffff)),
        (Self::udp(67), Self::udp(68)),
        (Self::udp(546), Self::udp(547)),
        (Self::ICMPV6_CONTROL, Self::ICMPV6_CONTROL),
        (Self::of(Self::PIM, 0), Self::of(Self::PIM, 0xffff)),
    ];

    const fn of(protocol: u8, detail: u16) -> Self {
        Self((protocol as u32) << 16 | detail as u32)
    }

    /// A datagram to this UDP port.
    #[must_use]
    #[inline(always)]
    pub const fn udp(port: u16) -> Self {
        Self::of(Self::UDP, port)
    }

    /// Everything of this protocol: the lowest and the highest selector.
    #[must_use]
    pub const fn protocol(protocol: u8) -> (Self, Self) {
        (Self::of(protocol, 0), Self::of(protocol, 0xffff))
    }

    /// A packet of a protocol of which nothing but its number counts.
    #[must_use]
    #[inline(always)]
    pub const fn other(protocol: u8) -> Self {
        Self::of(protocol, 0)
    }

    /// Whether it is UDP.
    #[must_use]
    #[inline(always)]
    pub const fn is_udp(self) -> bool {
        self.0 >> 16 == Self::UDP as u32
    }

    /// Whether it is one of [`Self::CONTROL`].
    #[must_use]
    #[inline(always)]
    pub const fn is_control(self) -> bool {
        const IGMP: u32 = Selector::IGMP as u32;
        const ICMPV6: u32 = Selector::ICMPV6 as u32;
        const PIM: u32 = Selector::PIM as u32;
        const UDP: u32 = Selector::UDP as u32;
        match self.0 >> 16 {
            UDP => matches!(self.0 & 0xffff, 67 | 68 | 546 | 547),
            ICMPV6 => self.0 == Self::ICMPV6_CONTROL.0,
            protocol => matches!(protocol, IGMP | PIM),
        }
    }

    /// The next higher one; `None`: it is the last.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        (self < Self::LAST).then(|| Self(self.0 + 1))
    }

    /// The next lower one; `None`: it is the first.
    #[must_use]
    pub fn previous(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }

    /// As a word, the form in which it passes through the registers of a call.
    #[must_use]
    #[inline(always)]
    pub const fn to_word(self) -> u32 {
        self.0
    }

    /// From the word of [`Self::to_word`].
    #[must_use]
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self(word)
    }
}

/// All selectors in a row, cut into ranges. Written once, never changed.
///
/// Where the ranges do not fit, some lead to further ones ([`Way::Ports`]), [`Ports::DEPTH`]
/// in a row at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Ports {
    /// Where each range begins, lowest first; [`u32::MAX`] behind the last one.
    starts: [u32; Ports::LENGTH],
    /// Where each range leads to.
    targets: [Target; Ports::LENGTH],
}

const _: () = assert!(size_of::<Ports>() == 256);

impl Ports {
    /// How many ranges fit: a power of two.
    pub const LENGTH: usize = 32;
    /// How many of these a lookup goes through at most: enough for a range of every port.
    pub const DEPTH: usize = 4;

    /// Ranges by where they begin, lowest first; what lies below the first leads nowhere.
    /// `None`: there are too many.
    #[must_use]
    pub fn new(ranges: &[(Selector, Target)]) -> Option<Self> {
        let mut ports = Self {
            starts: [u32::MAX; Self::LENGTH],
            targets: [Target::NOWHERE; Self::LENGTH],
        };
        for (index, (start, target)) in ranges.iter().enumerate() {
            *ports.starts.get_mut(index)? = start.0;
            *ports.targets.get_mut(index)? = *target;
        }
        Some(ports)
    }

    /// Where this selector leads to.
    #[must_use]
    #[inline(always)]
    pub fn find(&self, selector: Selector) -> Target {
        if selector.0 < self.starts[0] {
            return Target::NOWHERE;
        }
        // The last range that begins at or below the selector.
        let mut found = 0;
        let mut step = Self::LENGTH / 2;
        while step > 0 {
            let probe = found + step;
            if self.starts[probe & (Self::LENGTH - 1)] <= selector.0 {
                found = probe;
            }
            step /= 2;
        }
        self.targets[found & (Self::LENGTH - 1)]
    }

    /// The ranges it is made of.
    pub fn ranges(&self) -> impl Iterator<Item = (Selector, Target)> + '_ {
        let ranges = self.starts.iter().zip(&self.targets);
        ranges
            .take_while(|(start, _)| **start != u32::MAX)
            .map(|(start, target)| (Selector(*start), *target))
    }

    /// The slots and further ranges it leads to.
    pub fn ways(&self) -> impl Iterator<Item = Way> + '_ {
        self.ranges().map(|(_, target)| target.way())
    }
}

#[cfg(feature = "user")]
mod pod {
    #![expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]

    use super::Ports;

    // SAFETY: repr(C), every field plain integers, and the size assertion above leaves no room
    // for padding that is not a field.
    unsafe impl aya::Pod for Ports {}
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::{Ports, Selector, Target, Way};

    #[test]
    fn a_selector_is_found_in_the_range_that_begins_before_it() {
        for count in [1_u16, 2, 31, 32] {
            let ranges: Vec<_> = (0..count)
                .map(|n| {
                    let target = Target::new(Way::Slot(u32::from(n)));
                    (Selector::udp(10 + 10 * n), target)
                })
                .collect();
            let ports = Ports::new(&ranges).unwrap();
            assert_eq!(ports.find(Selector::FIRST), Target::NOWHERE);
            assert_eq!(ports.find(Selector::udp(9)), Target::NOWHERE);
            for n in 0..count {
                let want = Target::new(Way::Slot(u32::from(n)));
                for port in [10 + 10 * n, 15 + 10 * n, 19 + 10 * n] {
                    assert_eq!(ports.find(Selector::udp(port)), want, "{count} {port}");
                }
            }
            let last = Target::new(Way::Slot(u32::from(count - 1)));
            assert_eq!(ports.find(Selector::LAST), last);
            assert!(ports.ranges().eq(ranges));
        }
        assert!(Ports::new(&[(Selector::FIRST, Target::NOWHERE); 33]).is_none());
    }

    #[test]
    fn control_traffic_is_what_the_ranges_say() {
        for word in 0..=Selector::LAST.0 {
            let selector = Selector(word);
            let within =
                |(first, last): &(Selector, Selector)| (*first..=*last).contains(&selector);
            assert_eq!(selector.is_control(), Selector::CONTROL.iter().any(within));
        }
    }
}

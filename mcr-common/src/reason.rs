//! Why a frame, or a copy of it, was not sent.

/// Why a frame of interest was not relayed, or a copy of it not sent.
///
/// The discriminant is the index of the counter in [`crate::table::LinkStats`] and
/// [`crate::table::EgressStats`], so the list only ever grows at its end: a running datapath
/// that an older controller loaded keeps its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The source MAC address is that of an mcr: relaying it again could make a loop.
    AlreadyRelayed = 0,
    /// The frame ends before the length its headers announce.
    Truncated = 1,
    /// The frame carries a VLAN ID that no relay on this link takes.
    Tagged = 2,
    /// Neither IPv4 nor IPv6, and no relay's `frames` takes it.
    NotIp = 3,
    /// An IP or UDP header contradicts itself.
    BadHeader = 4,
    /// The IP destination is no multicast group: a broadcast that no relay takes.
    NotGroup = 5,
    /// IGMP, MLD, PIM, neighbour discovery or DHCP: never relayed unless a relay asks for it.
    Control = 6,
    /// A protocol other than UDP, which no relay takes.
    NotUdp = 7,
    /// A later fragment whose first fragment was not seen, or was not relayed.
    UnknownFragment = 8,
    /// No relay on this link takes the group, source and port.
    NoRelay = 9,
    /// A relay matches, but has no egress link now but the ingress itself.
    NoEgress = 10,
    /// The controller has gone, and this attachment outlived it (clsact only).
    LeaseExpired = 11,
    /// A copy would be larger than the MTU of its egress.
    TooBig = 12,
    /// `ttl: decrement` met a TTL or hop limit of 0 or 1.
    HopLimit = 13,
    /// The kernel refused the copy: the egress is down or without carrier, gone, or out of buffers.
    EgressFailed = 14,
    /// Over the `limit` of every relay that matches.
    Limited = 15,
    /// The station of a unicast egress has no known MAC address.
    NoNeighbour = 16,
    /// The packet ring was full.
    Overrun = 17,
}

impl Reason {
    /// Every reason, in the order of the counters.
    pub const ALL: [Self; 18] = [
        Self::AlreadyRelayed,
        Self::Truncated,
        Self::Tagged,
        Self::NotIp,
        Self::BadHeader,
        Self::NotGroup,
        Self::Control,
        Self::NotUdp,
        Self::UnknownFragment,
        Self::NoRelay,
        Self::NoEgress,
        Self::LeaseExpired,
        Self::TooBig,
        Self::HopLimit,
        Self::EgressFailed,
        Self::Limited,
        Self::NoNeighbour,
        Self::Overrun,
    ];

    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The index of this reason's counter.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name used for metrics and in traces: lower case, words joined by hyphens.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::AlreadyRelayed => "already-relayed",
            Self::Truncated => "truncated",
            Self::Tagged => "tagged",
            Self::NotIp => "not-ip",
            Self::BadHeader => "bad-header",
            Self::NotGroup => "not-group",
            Self::Control => "control",
            Self::NotUdp => "not-udp",
            Self::UnknownFragment => "unknown-fragment",
            Self::NoRelay => "no-relay",
            Self::NoEgress => "no-egress",
            Self::LeaseExpired => "lease-expired",
            Self::TooBig => "too-big",
            Self::HopLimit => "hop-limit",
            Self::EgressFailed => "egress-failed",
            Self::Limited => "limited",
            Self::NoNeighbour => "no-neighbour",
            Self::Overrun => "overrun",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Reason;
    use std::collections::BTreeSet;

    #[test]
    fn the_list_is_in_the_order_of_the_counters_and_names_are_unique() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), index);
        }
        let labels: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), Reason::COUNT);
    }
}

//! Random models that hold what the types of the model promise.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::{NonZeroU16, NonZeroU64},
    path::PathBuf,
};

use ipnet::IpNet;
use mcr::config::model::{
    DatapathChoice, Edits, Frames, GroupMatch, Limit, Limits, LinkName, LinkSelector, Local,
    MacPrefix, Match, Packets, PortRange, ProtocolMatch, Relay, RuleFile, SourceMac, Ttl, Unicast,
    VlanEdit, VlanMatch, Way,
};
use proptest::{
    collection::{btree_set, vec},
    option,
    prelude::*,
    sample::select,
};

/// Any rule file without errors.
pub(crate) fn rule_file() -> impl Strategy<Value = RuleFile> {
    let datapath = select(vec![
        DatapathChoice::Auto,
        DatapathChoice::Xdp,
        DatapathChoice::Tc,
        DatapathChoice::AfPacket,
    ]);
    let limits = (1..=Limits::MOST_ROUTES, 1..=Limits::MOST_LINKS);
    let control = option::of("(/[a-zü #:-]{1,8}){1,3}[a-z]".prop_map(PathBuf::from));
    let file = (datapath, limits, control, vec(relay(), 1..5));
    file.prop_map(|(datapath, (routes, links), control, mut relays)| {
        for (number, relay) in relays.iter_mut().enumerate() {
            relay.name = format!("r{number}");
            match datapath {
                DatapathChoice::AfPacket => relay.local = Local::Keep,
                DatapathChoice::Xdp => suit_xdp(relay),
                DatapathChoice::Auto | DatapathChoice::Tc => {}
            }
        }
        RuleFile {
            datapath,
            limits: Limits { routes, links },
            control,
            relays,
        }
    })
}

/// Takes away what XDP can't do.
fn suit_xdp(relay: &mut Relay) {
    relay.local = Local::Drop;
    relay.limit = None;
    for way in &mut relay.to {
        way.edits.vlan = None;
    }
    let ways: BTreeSet<_> = relay.to.drain(..).collect();
    relay.to.extend(ways);
}

fn relay() -> impl Strategy<Value = Relay> {
    let matches = prop_oneof![3 => datagrams(), 1 => packets(), 1 => frames()];
    let (from, to) = (btree_set("[a-z]{1,3}", 1..4), vec("[a-z]{1,3}|ü[*@]", 0..4));
    let rest = (vlans(), option::of(limit()), any::<[bool; 3]>());
    (from, to, matches, rest).prop_flat_map(|(from, mut to, (matches, edits), rest)| {
        // A link that no frame comes from, so that there is a way out.
        to.push("out0".to_owned());
        let ways: Vec<_> = to
            .into_iter()
            .map(|name| edits.clone().prop_map(move |edits| (link(&name), edits)))
            .collect();
        (Just((from, matches, rest)), ways).prop_map(|((from, matches, rest), ways)| {
            let (vlans, limit, [drop, host_frames, join]) = rest;
            let ways: BTreeSet<_> = ways.into_iter().collect();
            Relay {
                name: String::new(),
                place: None,
                from: from.iter().map(|name| link(name)).collect(),
                to: ways
                    .into_iter()
                    .map(|(link, edits)| Way { link, edits })
                    .collect(),
                matches,
                vlans,
                local: if drop { Local::Drop } else { Local::Keep },
                limit,
                host_frames,
                join,
            }
        })
    })
}

fn link(name: &str) -> LinkSelector {
    LinkSelector::Name(LinkName::new(name).unwrap())
}

/// What a relay takes, and any edits that are possible with it.
type Matched = (Match, BoxedStrategy<Edits>);

/// UDP, with all edits.
fn datagrams() -> BoxedStrategy<Matched> {
    let ports = btree_set(ports(), 0..4);
    (groups_and_sources(), ports, any::<bool>())
        .prop_map(|((mut groups, sources, family), ports, broadcast)| {
            if broadcast && !ports.is_empty() && family == Some(true) {
                groups.insert(GroupMatch::Broadcast);
            }
            let length = match groups.first() {
                Some(GroupMatch::Prefix(prefix)) if groups.len() == 1 => Some(prefix.prefix_len()),
                _ => None,
            };
            let packets = Packets {
                groups,
                sources,
                ports,
                protocol: ProtocolMatch::udp(),
            };
            (Match::Packets(packets), edits_of_datagrams(family, length))
        })
        .boxed()
}

/// Any protocols, with edits of the IP header.
fn packets() -> BoxedStrategy<Matched> {
    let protocol = prop_oneof![
        Just(ProtocolMatch::Any),
        btree_set(any::<u8>(), 1..5).prop_map(ProtocolMatch::Numbers),
    ];
    (groups_and_sources(), protocol)
        .prop_map(|((groups, sources, _), protocol)| {
            let packets = Packets {
                groups,
                sources,
                ports: BTreeSet::new(),
                protocol,
            };
            (Match::Packets(packets), edits_of_packets().boxed())
        })
        .boxed()
}

/// What is not IP, with edits of the Ethernet header.
fn frames() -> BoxedStrategy<Matched> {
    const OTHER_FIELDS: [u16; 7] = [0x800, 0x806, 0x86dd, 0x8100, 0x88a8, 0x9100, 0x9200];
    let mac = (any::<[u8; 6]>(), 8..=48u8).prop_map(|(mut address, length)| {
        address[0] |= 1;
        MacPrefix::new(address, length)
    });
    let ethertype =
        (0x600..=u16::MAX).prop_filter("a type of other fields", |n| !OTHER_FIELDS.contains(n));
    (btree_set(mac, 1..4), btree_set(ethertype, 0..4))
        .prop_map(|(macs, ethertypes)| {
            let frames = Frames { macs, ethertypes };
            (Match::Frames(frames), edits_of_frames().boxed())
        })
        .boxed()
}

/// Groups, sources that fit them, and the family if there is only one: whether it is IPv4.
fn groups_and_sources()
-> impl Strategy<Value = (BTreeSet<GroupMatch>, BTreeSet<IpNet>, Option<bool>)> {
    select(vec![Some(true), Some(false), None]).prop_flat_map(|family| {
        let families: Vec<_> = [true, false]
            .into_iter()
            .filter(|v4| family.is_none_or(|family| family == *v4))
            .collect();
        let groups: Vec<_> = families
            .iter()
            .map(|v4| btree_set(group(*v4), 1..3))
            .collect();
        let sources: Vec<_> = families
            .iter()
            .map(|v4| btree_set(source(*v4), 1..3))
            .collect();
        (groups, option::of(sources), Just(family)).prop_map(|(groups, sources, family)| {
            let sources = sources.unwrap_or_default();
            (
                groups
                    .into_iter()
                    .flatten()
                    .map(GroupMatch::Prefix)
                    .collect(),
                sources.into_iter().flatten().collect(),
                family,
            )
        })
    })
}

fn group(v4: bool) -> BoxedStrategy<IpNet> {
    let lengths = if v4 { 4..=32u8 } else { 8..=128 };
    lengths
        .prop_flat_map(move |length| group_of_length(v4, length))
        .boxed()
}

fn group_of_length(v4: bool, length: u8) -> BoxedStrategy<IpNet> {
    if v4 {
        let address = (0xe000_0000..=0xefff_ffffu32).prop_map(Ipv4Addr::from);
        address.prop_map(move |a| prefix(a.into(), length)).boxed()
    } else {
        let address = any::<u128>().prop_map(|bits| Ipv6Addr::from(bits | 0xff << 120));
        address.prop_map(move |a| prefix(a.into(), length)).boxed()
    }
}

fn prefix(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length).unwrap().trunc()
}

fn source(v4: bool) -> BoxedStrategy<IpNet> {
    let lengths = if v4 { 1..=32u8 } else { 1..=128 };
    (station(v4), lengths)
        .prop_map(|(address, length)| prefix(address, length))
        .prop_filter("a multicast prefix or an unusable address", |prefix| {
            let exact = prefix.prefix_len() == prefix.max_prefix_len();
            let unusable = exact && prefix.addr().is_unspecified();
            !unusable && !prefix.addr().is_multicast()
        })
        .boxed()
}

/// The address of a station.
fn station(v4: bool) -> BoxedStrategy<IpAddr> {
    if v4 {
        let address = (0x0100_0000..=0xdfff_ffffu32).prop_map(Ipv4Addr::from);
        let usable = address.prop_filter("loopback", |address| !address.is_loopback());
        usable.prop_map(IpAddr::from).boxed()
    } else {
        let address = (1u128 << 64..0xff << 120).prop_map(Ipv6Addr::from);
        address.prop_map(IpAddr::from).boxed()
    }
}

fn port() -> impl Strategy<Value = NonZeroU16> {
    (1..=u16::MAX).prop_map(|port| NonZeroU16::new(port).unwrap())
}

fn ports() -> impl Strategy<Value = PortRange> {
    (port(), port()).prop_map(|(a, b)| PortRange {
        first: a.min(b),
        last: a.max(b),
    })
}

fn vlans() -> BoxedStrategy<BTreeSet<VlanMatch>> {
    let one = prop_oneof![
        Just(VlanMatch::Untagged),
        (1..=4094u16).prop_map(VlanMatch::Id)
    ];
    prop_oneof![Just([VlanMatch::Any].into()), btree_set(one, 1..4)].boxed()
}

fn limit() -> impl Strategy<Value = Limit> {
    (1..=Limit::LARGEST, any::<bool>()).prop_map(|(rate, bits)| {
        let rate = NonZeroU64::new(rate).unwrap();
        if bits {
            Limit::Bits(rate)
        } else {
            Limit::Frames(rate)
        }
    })
}

fn edits_of_frames() -> impl Strategy<Value = Edits> {
    let source_mac = select(vec![
        SourceMac::Auto,
        SourceMac::Relay,
        SourceMac::Egress,
        SourceMac::Keep,
    ]);
    let vlan = prop_oneof![
        Just(VlanEdit::Untagged),
        (1..=4094u16).prop_map(VlanEdit::Id)
    ];
    (source_mac, option::of(vlan)).prop_map(|(source_mac, vlan)| Edits {
        source_mac,
        vlan,
        ..Edits::default()
    })
}

fn edits_of_packets() -> impl Strategy<Value = Edits> {
    let ttl = prop_oneof![
        Just(Ttl::Keep),
        Just(Ttl::Decrement),
        (1..=255u8).prop_map(Ttl::Set)
    ];
    (edits_of_frames(), ttl, option::of(0..=63u8)).prop_map(|(edits, ttl, dscp)| Edits {
        ttl,
        dscp,
        ..edits
    })
}

/// The family of the groups if they are of one, and the length of the prefix if there is only one
/// group.
fn edits_of_datagrams(family: Option<bool>, length: Option<u8>) -> BoxedStrategy<Edits> {
    let ports = (edits_of_packets(), option::of(port()));
    let ports = ports.prop_map(|(edits, port)| Edits { port, ..edits });
    let Some(v4) = family else {
        return ports.boxed();
    };
    let unicast = (station(v4), option::of(station(v4)))
        .prop_map(|(address, gateway)| Unicast { address, gateway });
    let group: BoxedStrategy<Option<IpNet>> = match length {
        Some(length) => option::of(group_of_length(v4, length)).boxed(),
        None => Just(None).boxed(),
    };
    (ports, option::of(station(v4)), option::of(unicast), group)
        .prop_map(|(edits, source, unicast, group)| Edits {
            source,
            unicast,
            group: group.filter(|_| unicast.is_none()),
            ..edits
        })
        .boxed()
}

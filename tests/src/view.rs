//! UDP frames, read with etherparse: neither the parser under test nor what writes them.

use std::net::{IpAddr, SocketAddr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice, VlanSlice};

/// A UDP datagram as it was found in a frame. Tags are those in the bytes, outermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpView {
    /// The source MAC address.
    pub source_mac: [u8; 6],
    /// The destination MAC address.
    pub destination_mac: [u8; 6],
    /// VLAN ids.
    pub vlans: Vec<u16>,
    /// The source address and port.
    pub source: SocketAddr,
    /// The destination address and port.
    pub group: SocketAddr,
    /// The TTL or hop limit.
    pub ttl: u8,
    /// The payload.
    pub payload: Vec<u8>,
}

impl UdpView {
    /// Reads a frame; `None` if it holds no whole UDP datagram.
    #[must_use]
    pub fn read(frame: &[u8]) -> Option<Self> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let ethernet = packet.link.as_ref()?.to_header()?.ethernet2()?;
        let vlans = match packet.vlan() {
            None => Vec::new(),
            Some(VlanSlice::SingleVlan(tag)) => vec![tag.vlan_identifier().value()],
            Some(VlanSlice::DoubleVlan(tags)) => vec![
                tags.outer.vlan_identifier().value(),
                tags.inner.vlan_identifier().value(),
            ],
        };
        let (source, group, ttl): (IpAddr, IpAddr, u8) = match packet.net.as_ref()? {
            NetSlice::Ipv4(ip) => {
                let header = ip.header();
                let (source, group) = (header.source_addr(), header.destination_addr());
                (source.into(), group.into(), header.ttl())
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header();
                let (source, group) = (header.source_addr(), header.destination_addr());
                (source.into(), group.into(), header.hop_limit())
            }
            NetSlice::Arp(_) => return None,
        };
        let TransportSlice::Udp(udp) = packet.transport? else {
            return None;
        };
        Some(Self {
            source_mac: ethernet.source,
            destination_mac: ethernet.destination,
            vlans,
            source: (source, udp.source_port()).into(),
            group: (group, udp.destination_port()).into(),
            ttl,
            payload: udp.payload().to_vec(),
        })
    }
}

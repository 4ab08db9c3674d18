//! UDP frames, written with `pnet_packet`: neither the code under test nor what reads them again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use pnet_packet::Packet as _;
use pnet_packet::ethernet::{EtherType, EtherTypes, MutableEthernetPacket};
use pnet_packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet_packet::ipv4::{self, MutableIpv4Packet};
use pnet_packet::ipv6::MutableIpv6Packet;
use pnet_packet::udp::{self, MutableUdpPacket};

use crate::capture::VlanTag;

const ETHERNET: usize = 14;
const VLAN: usize = 4;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;

/// The MAC address of a group: RFC 1112, section 6.4, and RFC 2464, section 7.
///
/// For a unicast address there is none; a locally administered one stands in.
#[must_use]
pub fn group_mac(group: IpAddr) -> [u8; 6] {
    match group {
        IpAddr::V4(v4) if v4.is_multicast() => {
            let [_, b, c, d] = v4.octets();
            [0x01, 0x00, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(v6) if v6.is_multicast() => {
            let [.., a, b, c, d] = v6.octets();
            [0x33, 0x33, a, b, c, d]
        }
        IpAddr::V4(v4) if v4.is_broadcast() => [0xff; 6],
        _ => [0x02, 0, 0, 0, 0, 0x01],
    }
}

/// An address and port written out, as `239.1.1.1:5000` or `[ff3e::1]:5000`.
pub fn socket(text: &str) -> Result<SocketAddr> {
    text.parse()
        .with_context(|| format!("{text:?} is no address and port"))
}

/// An IPv6 extension header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its protocol number, which stands in the header before it.
    pub number: u8,
    /// All of it behind its next-header field: the length field first where it has one, and as
    /// long as makes the header a multiple of eight bytes.
    pub body: Vec<u8>,
}

impl Extension {
    /// Hop-by-hop options (RFC 8200, section 4.3) holding padding alone.
    #[must_use]
    pub fn hop_by_hop() -> Self {
        // Length 0 means eight bytes; PadN with four bytes of padding fills them.
        Self {
            number: 0,
            body: vec![0, 1, 4, 0, 0, 0, 0],
        }
    }

    /// Destination options (RFC 8200, section 4.6) holding padding alone.
    #[must_use]
    pub fn destination() -> Self {
        Self {
            number: 60,
            ..Self::hop_by_hop()
        }
    }
}

/// A UDP datagram in a frame, to be built. Lengths and checksums are right unless changed in the
/// bytes afterwards.
#[derive(Clone, Debug)]
pub struct UdpFrame {
    source_mac: [u8; 6],
    destination_mac: [u8; 6],
    vlans: Vec<VlanTag>,
    source: SocketAddr,
    group: SocketAddr,
    ttl: u8,
    options: Vec<u8>,
    extensions: Vec<Extension>,
    payload: Vec<u8>,
}

impl UdpFrame {
    /// A datagram from `source` to `group`, of the same family: TTL 1, untagged, no payload, from
    /// a locally administered MAC address to that of the group.
    #[must_use]
    pub fn new(source: SocketAddr, group: SocketAddr) -> Self {
        Self {
            source_mac: [0x02, 0, 0, 0, 0, 0x99],
            destination_mac: group_mac(group.ip()),
            vlans: Vec::new(),
            source,
            group,
            ttl: 1,
            options: Vec::new(),
            extensions: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// Sets the source MAC address.
    #[must_use]
    pub fn source_mac(mut self, mac: [u8; 6]) -> Self {
        self.source_mac = mac;
        self
    }

    /// Sets a destination MAC address other than the group's.
    #[must_use]
    pub fn destination_mac(mut self, mac: [u8; 6]) -> Self {
        self.destination_mac = mac;
        self
    }

    /// Adds a VLAN tag inside those there are.
    #[must_use]
    pub fn vlan(mut self, tag: VlanTag) -> Self {
        self.vlans.push(tag);
        self
    }

    /// Sets the TTL or hop limit.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets IPv4 options: a multiple of four bytes, at most 40.
    #[must_use]
    pub fn options(mut self, options: &[u8]) -> Self {
        options.clone_into(&mut self.options);
        self
    }

    /// Adds an IPv6 extension header behind those there are.
    #[must_use]
    pub fn extension(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    /// Sets the payload.
    #[must_use]
    pub fn payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = payload.into();
        self
    }

    /// The frame's bytes, without padding to 60 bytes and without a check sequence.
    pub fn build(&self) -> Result<Vec<u8>> {
        let udp = self.udp()?;
        let (ip, ether_type) = match (self.source.ip(), self.group.ip()) {
            (IpAddr::V4(source), IpAddr::V4(group)) => {
                ensure!(self.extensions.is_empty(), "IPv4 has no extension headers");
                (self.ipv4(source, group, &udp)?, EtherTypes::Ipv4)
            }
            (IpAddr::V6(source), IpAddr::V6(group)) => {
                ensure!(self.options.is_empty(), "options here are those of IPv4");
                (self.ipv6(source, group, &udp)?, EtherTypes::Ipv6)
            }
            _ => bail!("{} and {} are of two families", self.source, self.group),
        };
        self.ethernet(&ip, ether_type)
    }

    fn ethernet(&self, ip: &[u8], ether_type: EtherType) -> Result<Vec<u8>> {
        let mut frame = vec![0; ETHERNET];
        let mut types: Vec<u16> = self.vlans.iter().map(|tag| tag.tpid).collect();
        types.push(ether_type.0);
        let mut header = MutableEthernetPacket::new(&mut frame).context("no room for Ethernet")?;
        header.set_destination(self.destination_mac.into());
        header.set_source(self.source_mac.into());
        header.set_ethertype(EtherType(types[0]));
        frame.reserve(VLAN * self.vlans.len() + ip.len());
        for (tag, inner) in self.vlans.iter().zip(&types[1..]) {
            frame.extend(tag.tci.to_be_bytes());
            frame.extend(inner.to_be_bytes());
        }
        frame.extend(ip);
        Ok(frame)
    }

    fn ipv4(&self, source: Ipv4Addr, group: Ipv4Addr, udp: &[u8]) -> Result<Vec<u8>> {
        let header = IPV4 + self.options.len();
        ensure!(
            self.options.len().is_multiple_of(4) && header <= 60,
            "IPv4 options are a multiple of 4 bytes and at most 40"
        );
        let mut bytes = vec![0; header];
        bytes.extend(udp);
        let length = length(bytes.len())?;
        let mut ip = MutableIpv4Packet::new(&mut bytes).context("no room for IPv4")?;
        ip.set_version(4);
        ip.set_header_length(u8::try_from(header / 4).context("an IPv4 header is too long")?);
        ip.set_total_length(length);
        ip.set_ttl(self.ttl);
        ip.set_next_level_protocol(IpNextHeaderProtocols::Udp);
        ip.set_source(source);
        ip.set_destination(group);
        ip.get_options_raw_mut().copy_from_slice(&self.options);
        let checksum = ipv4::checksum(&ip.to_immutable());
        ip.set_checksum(checksum);
        Ok(bytes)
    }

    fn ipv6(&self, source: Ipv6Addr, group: Ipv6Addr, udp: &[u8]) -> Result<Vec<u8>> {
        let mut numbers: Vec<u8> = self.extensions.iter().map(|e| e.number).collect();
        numbers.push(IpNextHeaderProtocols::Udp.0);
        let mut rest = Vec::new();
        for (extension, next) in self.extensions.iter().zip(&numbers[1..]) {
            ensure!(
                (extension.body.len() + 1).is_multiple_of(8),
                "an extension header is a multiple of 8 bytes"
            );
            rest.push(*next);
            rest.extend(&extension.body);
        }
        rest.extend(udp);
        let mut bytes = vec![0; IPV6];
        let mut ip = MutableIpv6Packet::new(&mut bytes).context("no room for IPv6")?;
        ip.set_version(6);
        ip.set_payload_length(length(rest.len())?);
        ip.set_next_header(IpNextHeaderProtocol(numbers[0]));
        ip.set_hop_limit(self.ttl);
        ip.set_source(source);
        ip.set_destination(group);
        bytes.extend(rest);
        Ok(bytes)
    }

    fn udp(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; UDP];
        bytes.extend(&self.payload);
        let length = length(bytes.len())?;
        let mut udp = MutableUdpPacket::new(&mut bytes).context("no room for UDP")?;
        udp.set_source(self.source.port());
        udp.set_destination(self.group.port());
        udp.set_length(length);
        let sum = match (self.source.ip(), self.group.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                udp::ipv4_checksum(&udp.to_immutable(), &from, &to)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                udp::ipv6_checksum(&udp.to_immutable(), &from, &to)
            }
            _ => bail!("{} and {} are of two families", self.source, self.group),
        };
        // Zero says that there is none, and is sent as its other form (RFC 768).
        udp.set_checksum(if sum == 0 { 0xffff } else { sum });
        Ok(udp.packet().to_vec())
    }
}

fn length(bytes: usize) -> Result<u16> {
    u16::try_from(bytes).context("a datagram is at most 65535 bytes long")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UdpView;
    use etherparse::{PacketHeaders, TransportHeader};

    fn socket(text: &str) -> SocketAddr {
        super::socket(text).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (source, group) in [
            ("10.77.0.2:40000", "239.1.1.1:5000"),
            ("[fd77::2]:40000", "[ff3e::4321:1234]:5000"),
        ] {
            let frame = UdpFrame::new(socket(source), socket(group))
                .source_mac([2, 0, 0, 0, 0, 7])
                .ttl(9)
                .vlan(VlanTag::new(0x88a8, 30))
                .vlan(VlanTag::new(0x8100, 20))
                .payload("payload");
            let bytes = frame.build().unwrap();
            let expected = UdpView {
                source_mac: [2, 0, 0, 0, 0, 7],
                destination_mac: group_mac(socket(group).ip()),
                vlans: vec![30, 20],
                source: socket(source),
                group: socket(group),
                ttl: 9,
                payload: b"payload".to_vec(),
            };
            assert_eq!(UdpView::read(&bytes), Some(expected));
            assert_eq!(UdpView::read(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn options_and_extensions_keep_checksums_right() {
        let v4 = UdpFrame::new(socket("10.77.0.2:1"), socket("239.255.0.1:5000"))
            // Router alert (RFC 2113).
            .options(&[148, 4, 0, 0])
            .payload("x");
        let v6 = UdpFrame::new(socket("[fd77::2]:1"), socket("[ff02::fb]:5353"))
            .extension(Extension::hop_by_hop())
            .extension(Extension::destination())
            .payload("y");
        for frame in [v4, v6] {
            let bytes = frame.build().unwrap();
            assert_eq!(UdpView::read(&bytes).unwrap().payload, frame.payload);
            let headers = PacketHeaders::from_ethernet_slice(&bytes).unwrap();
            let Some(TransportHeader::Udp(udp)) = headers.transport else {
                panic!("no UDP in {headers:?}");
            };
            let sum = match headers.net.unwrap() {
                etherparse::NetHeaders::Ipv4(ip, _) => {
                    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                    udp.calc_checksum_ipv4(&ip, &frame.payload).unwrap()
                }
                etherparse::NetHeaders::Ipv6(ip, _) => {
                    udp.calc_checksum_ipv6(&ip, &frame.payload).unwrap()
                }
                other @ etherparse::NetHeaders::Arp(_) => panic!("not IP: {other:?}"),
            };
            assert_eq!(udp.checksum, sum);
        }
    }

    #[test]
    fn what_cannot_be_built_is_refused() {
        let v4 = UdpFrame::new(socket("10.77.0.2:1"), socket("239.1.1.1:5000"));
        assert!(v4.clone().options(&[1]).build().is_err());
        assert!(v4.clone().options(&[0; 44]).build().is_err());
        assert!(
            v4.clone()
                .extension(Extension::hop_by_hop())
                .build()
                .is_err()
        );
        assert!(v4.payload(vec![0; 65_536]).build().is_err());
        let mixed = UdpFrame::new(socket("10.77.0.2:1"), socket("[ff02::fb]:5353"));
        assert!(mixed.build().is_err());
    }

    #[test]
    fn macs_of_groups() {
        // The 23 low bits only: 239.129.1.1 and 239.1.1.1 share one.
        let of = |text: &str| group_mac(text.parse().unwrap());
        assert_eq!(of("239.129.1.1"), [0x01, 0x00, 0x5e, 1, 1, 1]);
        assert_eq!(of("239.1.1.1"), of("224.1.1.1"));
        assert_eq!(of("ff02::fb"), [0x33, 0x33, 0, 0, 0, 0xfb]);
    }
}

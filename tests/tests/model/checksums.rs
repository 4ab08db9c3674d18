//! The checksums of copies are as right as those of the frames they were made from, by the word
//! of another implementation.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use mcr_tests::{
    fixtures::{fixtures, world},
    oracle::{Arrival, Fragments, Judgement, judge},
};
use proptest::{collection::vec, prelude::*};

use crate::{
    config,
    fixtures::arrival,
    frames,
    worlds::{self, IFINDEXES},
};

/// Which checksums of a frame are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Right {
    /// That of an IPv4 header.
    header: Option<bool>,
    /// That of a whole UDP datagram which has one.
    datagram: Option<bool>,
}

/// What can be said of a frame; `None`: it is not as it should be in other ways.
fn right(frame: &[u8]) -> Option<Right> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let header = match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            Some(header.calc_header_checksum() == header.header_checksum)
        }
        _ => None,
    };
    let datagram = match (packet.transport.as_ref(), packet.net.as_ref()?) {
        (Some(TransportSlice::Udp(udp)), net) if udp.checksum() != 0 => {
            let header = udp.to_header();
            let computed = match net {
                NetSlice::Ipv4(ip) => {
                    let ip = ip.header();
                    header.calc_checksum_ipv4_raw(ip.source(), ip.destination(), udp.payload())
                }
                NetSlice::Ipv6(ip) => {
                    let ip = ip.header();
                    header.calc_checksum_ipv6_raw(ip.source(), ip.destination(), udp.payload())
                }
                NetSlice::Arp(_) => return None,
            };
            Some(computed.ok()? == header.checksum)
        }
        _ => None,
    };
    Some(Right { header, datagram })
}

/// How many copies of a frame have right checksums of all kinds, which all have if it had.
fn check(arrival: &Arrival, judgement: &Judgement) -> usize {
    let (Judgement::Relayed(relayed), Some(before)) = (judgement, right(&arrival.frame)) else {
        return 0;
    };
    for copy in &relayed.copies {
        assert_eq!(
            right(&copy.frame),
            Some(before),
            "{copy:02x?} of {arrival:02x?}"
        );
    }
    let all_right = before.header != Some(false) && before.datagram == Some(true);
    if all_right { relayed.copies.len() } else { 0 }
}

#[test]
fn copies_of_the_fixtures_have_right_checksums() {
    let world = world([2, 3, 4, 5]);
    let mut fragments = Fragments::new();
    let mut good = 0;
    for fixture in fixtures() {
        let arrival = arrival(&fixture);
        let judgement = judge(&world, &mut fragments, &arrival);
        good += check(&arrival, &judgement);
    }
    assert!(good > 150, "only {good} copies have checksums at all");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn copies_of_random_frames_have_right_checksums(
        world in worlds::world(),
        arrivals in vec(frames::arrival(), 1..40),
    ) {
        let mut fragments = Fragments::new();
        for arrival in arrivals {
            for ingress in IFINDEXES {
                let arrival = Arrival { ingress, ..arrival.clone() };
                check(&arrival, &judge(&world, &mut fragments, &arrival));
            }
        }
    }
}

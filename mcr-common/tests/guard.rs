//! What comes around is told from what is sent again, and from all else.

use std::net::Ipv4Addr;

use etherparse::PacketBuilder;
use mcr_common::{
    Packet,
    frame::Slice,
    guard::{MAX_SEEN, Marks, Origin, Seen, Sighting, fingerprint, place},
    parse_into,
};
use proptest::prelude::*;

const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ANOTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const GROUP: [u8; 6] = [1, 0, 0x5e, 1, 1, 1];
const CIRCLE: u32 = 3;
const MILLISECOND: u64 = 1_000_000;

const FINE: Sighting = Sighting::Fine(Marks::None);
const REPEATED: Sighting = Sighting::Fine(Marks::Kept);

fn v4(source: Ipv4Addr, port: u16, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(SENDER, GROUP);
    let builder = builder.ipv4(source.octets(), [239, 1, 1, 1], ttl);
    let mut frame = Vec::new();
    builder.udp(40000, port).write(&mut frame, payload).unwrap();
    frame
}

fn v6(label: u32, payload: &[u8]) -> Vec<u8> {
    let mut source = [0; 16];
    source[15] = 1;
    let mut group = [0; 16];
    group[0] = 0xff;
    let ip = etherparse::Ipv6Header {
        flow_label: label.try_into().unwrap(),
        hop_limit: 9,
        source,
        destination: group,
        ..Default::default()
    };
    let builder = PacketBuilder::ethernet2(SENDER, [0x33, 0x33, 0, 0, 0, 0]);
    let builder = builder.ip(etherparse::IpHeaders::Ipv6(
        ip,
        etherparse::Ipv6Extensions::default(),
    ));
    let mut frame = Vec::new();
    builder.udp(1, 2).write(&mut frame, payload).unwrap();
    frame
}

fn read(frame: &[u8]) -> Packet {
    let mut packet = Packet::EMPTY;
    assert_eq!(parse_into(&Slice::new(frame), &mut packet), Ok(true));
    packet
}

fn print(frame: &[u8]) -> u64 {
    fingerprint(&Slice::new(frame), &read(frame), CIRCLE)
}

/// A place for one frame, and when it is.
#[derive(Default)]
struct Memory(Seen, u64);

impl Memory {
    /// What a frame is that arrives so many milliseconds after the last one.
    fn sight(&mut self, frame: &[u8], from: [u8; 6], link: u32, after: u64) -> Sighting {
        let mut packet = read(frame);
        packet.source_mac = from;
        self.1 += after * MILLISECOND;
        let origin = Origin::new(&packet, link);
        let (sighting, seen) = self.0.sight(print(frame), origin, self.1);
        self.0 = seen;
        sighting
    }
}

#[test]
fn what_came_around_is_known_by_link_or_station() {
    let frame = v4(Ipv4Addr::new(10, 0, 0, 1), 5000, 9, b"text");
    let mut memory = Memory(Seen::default(), 1 << 50);
    assert_eq!(memory.sight(&frame, SENDER, 1, 0), FINE);
    assert_eq!(memory.sight(&frame, SENDER, 2, 5), Sighting::Around);
    assert_eq!(memory.sight(&frame, ANOTHER, 1, 5), Sighting::Around);
    assert_eq!(memory.sight(&frame, ANOTHER, 2, 5), Sighting::Around);
    assert_eq!(memory.sight(&frame, SENDER, 1, 5), REPEATED);
    // What does not belong to it changes nothing about when it was seen.
    assert_eq!(memory.sight(&frame, SENDER, 2, 900), Sighting::Around);
    assert_eq!(memory.sight(&frame, SENDER, 2, 200), FINE);
    assert_eq!(memory.sight(&frame, SENDER, 1, 5), Sighting::Around);
}

#[test]
fn repetitions_are_marked_and_one_in_so_many_everywhere() {
    let frame = v4(Ipv4Addr::new(10, 0, 0, 1), 5000, 9, b"text");
    let mut memory = Memory(Seen::default(), 1 << 50);
    assert_eq!(memory.sight(&frame, SENDER, 1, 0), FINE);
    let sightings: Vec<_> = (0..512)
        .map(|_| memory.sight(&frame, SENDER, 1, 10))
        .collect();
    let all = Sighting::Fine(Marks::All);
    assert_eq!(
        sightings
            .iter()
            .filter(|sighting| **sighting == all)
            .count(),
        4
    );
    assert_eq!(sightings.iter().filter(|s| **s == REPEATED).count(), 508);
    assert_eq!(memory.sight(&frame, SENDER, 1, 1100), FINE);
}

#[test]
fn the_same_in_two_vlans_of_a_link_is_sent_twice() {
    let mut frame = v4(Ipv4Addr::new(10, 0, 0, 1), 5000, 9, b"text");
    let mut memory = Memory(Seen::default(), 1 << 50);
    assert_eq!(memory.sight(&frame, SENDER, 1, 0), FINE);
    frame.splice(12..12, [0x81, 0, 0, 10]);
    assert_eq!(memory.sight(&frame, ANOTHER, 1, 1), REPEATED);
    assert_eq!(memory.sight(&frame, ANOTHER, 2, 1), Sighting::Around);
}

#[test]
fn a_place_nobody_has_written_is_no_frame() {
    let frame = v4(Ipv4Addr::new(10, 0, 0, 1), 5000, 9, b"text");
    for now in [0, 1, 1 << 24, 1 << 40, u64::MAX] {
        let origin = Origin::new(&read(&frame), 1);
        let (sighting, _) = Seen::default().sight(print(&frame), origin, now);
        assert_eq!(sighting, FINE);
    }
}

/// A reader that finds one word of one frame and one of another finds none.
#[test]
fn words_of_two_frames_are_none() {
    let one = v4(Ipv4Addr::new(10, 0, 0, 1), 5000, 9, b"one");
    let two = v4(Ipv4Addr::new(10, 0, 0, 1), 5000, 9, b"two");
    let mut memories = [
        Memory(Seen::default(), 1 << 50),
        Memory(Seen::default(), 1 << 50),
    ];
    memories[0].sight(&one, SENDER, 1, 0);
    memories[1].sight(&two, SENDER, 2, 0);
    let torn = Seen {
        print: memories[0].0.print,
        state: memories[1].0.state,
    };
    for frame in [&one, &two] {
        assert_eq!(Memory(torn, 1 << 50).sight(frame, ANOTHER, 3, 0), FINE);
    }
}

#[test]
fn a_frame_is_known_whatever_happens_to_it_on_its_way() {
    let payload: Vec<u8> = (0..200).collect();
    for length in [0, 1, 7, 8, 9, 31, 32, 33, 40, 127, 128, 129, 200] {
        let text = &payload[..length];
        for before in [v4(Ipv4Addr::new(10, 0, 0, 1), 5000, 9, text), v6(7, text)] {
            let mut frame = before.clone();
            // Addresses, DSCP, TTL and header checksum, UDP checksum, a tag, padding.
            frame[..12].fill(0x0b);
            let version = frame[14] >> 4;
            if version == 4 {
                (frame[15], frame[22], frame[24], frame[25]) = (0xb8, 1, 1, 1);
                frame[40..42].fill(0x77);
            } else {
                (frame[14], frame[15]) = (0x6b, frame[15] | 0x80);
                frame[21] = 1;
                frame[60..62].fill(0x77);
            }
            frame.splice(12..12, [0x81, 0, 0, 10]);
            frame.extend([0xee; 20]);
            assert_eq!(
                print(&frame),
                print(&before),
                "{length} bytes, IPv{version}"
            );
        }
    }
}

#[test]
fn another_frame_is_another() {
    let source = Ipv4Addr::new(10, 0, 0, 1);
    let payload = [0; 136];
    let mut all = vec![
        v4(source, 5000, 9, &payload),
        v4(Ipv4Addr::new(10, 0, 0, 2), 5000, 9, &payload),
        v4(source, 5001, 9, &payload),
        v4(source, 5000, 9, &payload[..135]),
        v4(source, 5000, 9, &[]),
        v6(7, &payload),
        v6(8, &payload),
    ];
    for byte in 0..136 {
        let mut other = payload;
        other[byte] = 1;
        all.push(v4(source, 5000, 9, &other));
    }
    // Identification, and whether it may be fragmented.
    for (byte, bits) in [(18, 1), (19, 1), (20, 0x40)] {
        let mut other = all[0].clone();
        other[byte] ^= bits;
        all.push(other);
    }
    let mut prints: Vec<_> = all.iter().map(|frame| print(frame)).collect();
    let circle = fingerprint(&Slice::new(&all[0]), &read(&all[0]), CIRCLE + 1);
    prints.push(circle);
    let count = prints.len();
    prints.sort_unstable();
    prints.dedup();
    assert_eq!(prints.len(), count);
}

proptest! {
    /// Whatever bytes there are: no panic, and the place is one there is.
    #[test]
    fn any_frame_has_a_fingerprint(bytes in prop::collection::vec(any::<u8>(), 14..200)) {
        let mut packet = Packet::EMPTY;
        if parse_into(&Slice::new(&bytes), &mut packet) == Ok(true) {
            let print = fingerprint(&Slice::new(&bytes), &packet, CIRCLE);
            prop_assert!(place(print) < MAX_SEEN);
        }
    }

    /// Numbered frames of one sender spread over all places.
    #[test]
    fn places_are_spread(start in any::<u32>()) {
        let places: std::collections::BTreeSet<_> = (0..1000_u32)
            .map(|number| {
                let number = start.wrapping_add(number).to_be_bytes();
                place(print(&v4(Ipv4Addr::new(10, 0, 0, 1), 5000, 9, &number)))
            })
            .collect();
        // 1000 in 32768 places, at random: 985 are hit. Steps of one are not at random for a
        // multiplication: of a million starts most hit as many, and the worst 740.
        prop_assert!(places.len() > 600, "{} places", places.len());
    }
}

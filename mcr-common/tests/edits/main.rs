//! What holds of copies, whatever is edited together: they are the frame but for their edits, as
//! etherparse writes them, and their checksums are those computed anew, or as wrong as they were.

mod frames;
mod single;

use mcr_common::{
    Basis, Edit, Packet, Tag,
    edit::{MARGIN, Udp},
    frame::Slice,
    parse,
    table::{Egress, HopEdit, VlanEdit},
};
use proptest::prelude::*;

use self::frames::{both, same_zero};

/// The Internet checksum of some bytes, from its definition (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|word| {
            u32::from(u16::from_be_bytes([
                word[0],
                word.get(1).copied().unwrap_or(0),
            ]))
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// The copy of a frame that parses.
fn copied(bytes: &[u8], stripped: Option<Tag>, udp: Udp, egress: &Egress) -> (Packet, Vec<u8>) {
    let frame = Slice {
        stripped_tag: stripped.map(|tag| tag.tci),
        ..Slice::new(bytes)
    };
    let packet = parse(&frame).unwrap().unwrap();
    let basis = Basis::new(&frame, &packet);
    let edit = Edit::new(&basis, &packet, egress).unwrap();
    let mut buffer = vec![0xaa; MARGIN + bytes.len()];
    let start = edit.write(bytes, stripped, udp, &mut buffer).unwrap();
    // Beyond what it says they reach, edits change nothing.
    let reach = edit.reach();
    assert_eq!(buffer[MARGIN + reach..], bytes[reach..]);
    let mut head = vec![0; MARGIN + reach];
    assert_eq!(
        edit.write(&bytes[..reach], stripped, udp, &mut head),
        Some(start)
    );
    assert_eq!(head[start..], buffer[start..MARGIN + reach]);
    (packet, buffer.split_off(start))
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 2000,
        ..ProptestConfig::default()
    })]

    /// Wrong checksums stay wrong by as much, none stays none.
    #[test]
    fn a_copy_is_what_a_sender_would_have_sent_who_meant_it((sent, edits) in both()) {
        prop_assume!(sent.hop_limit > 1 || edits.hop != HopEdit::Decrement);
        let (_, copy) = copied(&sent.bytes(), sent.stripped(), Udp::Finished, &edits.egress());
        let expected = edits.apply(&sent);
        let mut wanted = expected.bytes();
        wanted[..12].copy_from_slice(&edits.macs(&expected));
        let network = 14 + if expected.tag.is_some() { 4 } else { 0 };
        if sent.source.is_ipv4() {
            prop_assert_eq!(same_zero(copy, network + 10), same_zero(wanted, network + 10));
        } else {
            prop_assert_eq!(copy, wanted);
        }
    }

    /// What the field of an unfinished checksum holds makes the checksum, with what it is made of.
    #[test]
    fn an_unfinished_checksum_can_be_finished((mut sent, edits) in both()) {
        prop_assume!(sent.hop_limit > 1 || edits.hop != HopEdit::Decrement);
        (sent.wrong_udp, sent.unchecked, sent.tag) = (0, false, None);
        let mut bytes = sent.bytes();
        let udp = bytes.len() - sent.payload.len() - 8;
        // From the pseudo-header alone.
        let pseudo = |bytes: &[u8]| {
            let mut sum = vec![0, 17];
            sum.extend(&bytes[udp + 4..udp + 6]);
            let (start, end) = if sent.source.is_ipv4() { (26, 34) } else { (22, 54) };
            sum.extend(&bytes[start..end]);
            !checksum(&sum)
        };
        let before = pseudo(&bytes);
        bytes[udp + 6..udp + 8].copy_from_slice(&before.to_be_bytes());
        let mut egress = edits.egress();
        egress = egress.vlan(VlanEdit::Keep);
        let (_, copy) = copied(&bytes, None, Udp::Unfinished, &egress);
        let field = u16::from_be_bytes([copy[udp + 6], copy[udp + 7]]);
        prop_assert_eq!(field, pseudo(&copy));
    }
}

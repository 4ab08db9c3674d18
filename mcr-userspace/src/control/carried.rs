//! What packets carry, in words.

use std::collections::BTreeSet;

use mcr_common::table::Selector;

use super::view::Word;

/// Protocols and UDP ports, of ranges of selectors, both ends included: names or numbers of
/// protocols, and ports unless it is all of them. What counts as control traffic is not missed.
pub(super) fn carried(ranges: &[(Selector, Selector)]) -> (Word, Option<String>) {
    let mut protocols = BTreeSet::new();
    let mut ports: BTreeSet<u16> = BTreeSet::new();
    for (first, last) in ranges {
        let (first, last) = (parts(*first), parts(*last));
        for protocol in first.0..=last.0 {
            let low = if protocol == first.0 { first.1 } else { 0 };
            let high = if protocol == last.0 { last.1 } else { u16::MAX };
            protocols.insert(protocol);
            if protocol == Selector::UDP {
                ports.extend(low..=high);
            }
        }
    }
    let all = protocols_but(&protocols, |number| {
        let (first, last) = Selector::protocol(number);
        Selector::CONTROL.contains(&(first, last))
    });
    let words = if all {
        "any".into()
    } else {
        let words = spans(protocols.into_iter().map(u16::from));
        match words.as_str() {
            "17" => "udp".into(),
            _ => words.into(),
        }
    };
    // Port 0 is none.
    let every =
        (1..=u16::MAX).all(|port| ports.contains(&port) || Selector::udp(port).is_control());
    let ports = (!every && !ports.is_empty()).then(|| spans(ports.into_iter()));
    (words, ports)
}

/// Whether all protocols are among these but those that may be missed.
fn protocols_but(protocols: &BTreeSet<u8>, may_miss: impl Fn(u8) -> bool) -> bool {
    (0..=u8::MAX).all(|number| protocols.contains(&number) || may_miss(number))
}

/// The protocol of a selector, and the port or what else of it counts.
fn parts(selector: Selector) -> (u8, u16) {
    let [_, protocol, high, low] = selector.to_word().to_be_bytes();
    (protocol, u16::from_be_bytes([high, low]))
}

/// Numbers as they are written in a rule file: `5000-5010, 6000`.
fn spans(numbers: impl Iterator<Item = u16>) -> String {
    let mut spans: Vec<(u16, u16)> = Vec::new();
    for number in numbers {
        match spans.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => spans.push((number, number)),
        }
    }
    let span = |(first, last): &(u16, u16)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    };
    spans.iter().map(span).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(first: u16, last: u16) -> (Selector, Selector) {
        (Selector::udp(first), Selector::udp(last))
    }

    fn words(ranges: &[(Selector, Selector)]) -> (String, Option<String>) {
        let (protocol, ports) = carried(ranges);
        (protocol.into_owned(), ports)
    }

    #[test]
    fn protocols_and_ports_are_written_as_in_a_rule_file() {
        let ports = |text: &str| ("udp".to_owned(), Some(text.to_owned()));
        assert_eq!(words(&[udp(5000, 5000)]), ports("5000"));
        assert_eq!(
            words(&[udp(5000, 5004), udp(5005, 5010), udp(6000, 6000)]),
            ports("5000-5010, 6000")
        );
        assert_eq!(words(&[udp(0, u16::MAX)]), ("udp".to_owned(), None));
        let without_dhcp = [udp(0, 66), udp(69, 545), udp(548, u16::MAX)];
        assert_eq!(words(&without_dhcp), ("udp".to_owned(), None));
        let everything = [(Selector::FIRST, Selector::LAST)];
        assert_eq!(words(&everything), ("any".to_owned(), None));
        let ospf = Selector::protocol(89);
        assert_eq!(words(&[ospf]), ("89".to_owned(), None));
        assert_eq!(
            words(&[udp(5000, 5000), ospf, Selector::protocol(90)]),
            ("17, 89-90".to_owned(), Some("5000".to_owned()))
        );
    }

    #[test]
    fn any_protocol_is_so_without_control_traffic_and_without_some_ports() {
        let mut rest = vec![(Selector::FIRST, Selector::LAST)];
        for (control, end) in Selector::CONTROL {
            let (first, last) = rest.pop().unwrap();
            rest.push((first, control.previous().unwrap()));
            rest.push((end.next().unwrap(), last));
        }
        assert_eq!(words(&rest), ("any".to_owned(), None));
        let (protocol, ports) = words(&[
            (Selector::FIRST, Selector::udp(4999)),
            (Selector::udp(5001), Selector::LAST),
        ]);
        assert_eq!(protocol, "any");
        assert_eq!(ports.as_deref(), Some("0-4999, 5001-65535"));
    }
}

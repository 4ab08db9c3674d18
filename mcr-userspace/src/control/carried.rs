//! What packets carry, in words.

use mcr_common::table::Selector;

use super::view::Word;

/// Numbers from one to another, both included.
type Span = (u16, u16);

/// Protocols and UDP ports, of ranges of selectors, both ends included: names or numbers of
/// protocols, and ports unless it is all of them. What counts as control traffic is not missed.
pub(super) fn carried(ranges: &[(Selector, Selector)]) -> (Word, Option<String>) {
    let protocols = merged(ranges.iter().map(|(first, last)| {
        let [first, last] = [first, last].map(|end| parts(*end).0);
        (first.into(), last.into())
    }));
    let ports = merged(ranges.iter().copied().filter_map(ports_of));
    let is_control = |protocol| {
        let whole = u8::try_from(protocol).map(Selector::protocol);
        whole.is_ok_and(|whole| Selector::CONTROL.contains(&whole))
    };
    let words = if are_all(&protocols, (0, u8::MAX.into()), is_control) {
        "any".into()
    } else {
        match written(&protocols).as_str() {
            "17" => "udp".into(),
            words => words.to_owned().into(),
        }
    };
    // Port 0 is none.
    let every = are_all(&ports, (1, u16::MAX), |port| {
        Selector::udp(port).is_control()
    });
    let ports = (!every && !ports.is_empty()).then(|| written(&ports));
    (words, ports)
}

/// The UDP ports among a range of selectors.
fn ports_of((first, last): (Selector, Selector)) -> Option<Span> {
    let (lowest, highest) = Selector::protocol(Selector::UDP);
    let (first, last) = (first.max(lowest), last.min(highest));
    (first <= last).then(|| (parts(first).1, parts(last).1))
}

/// The protocol of a selector, and the port or what else of it counts.
fn parts(selector: Selector) -> (u8, u16) {
    let [_, protocol, high, low] = selector.to_word().to_be_bytes();
    (protocol, u16::from_be_bytes([high, low]))
}

/// In order, with those in one that touch each other.
fn merged(spans: impl Iterator<Item = Span>) -> Vec<Span> {
    let mut spans: Vec<Span> = spans.collect();
    spans.sort_unstable();
    spans.dedup_by(|(first, last), (_, before)| {
        let touch = before.checked_add(1).is_none_or(|next| *first <= next);
        if touch {
            *before = (*before).max(*last);
        }
        touch
    });
    spans
}

/// Whether these spans, [`merged`], are all there is of a span but for numbers that may be missed.
fn are_all(spans: &[Span], (lowest, highest): Span, may_miss: impl Fn(u16) -> bool) -> bool {
    let mut next = Some(lowest);
    for (first, last) in spans {
        if let Some(next) = next
            && !(next..*first).all(&may_miss)
        {
            return false;
        }
        next = last.checked_add(1);
    }
    next.is_none_or(|next| (next..=highest).all(may_miss))
}

/// As in a rule file: `5000-5010, 6000`.
fn written(spans: &[Span]) -> String {
    let span = |(first, last): &Span| {
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
    use std::collections::BTreeSet;

    use proptest::prelude::*;

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

    proptest! {
        /// No more and no less, as few spans as can be, and all there is only if it is.
        #[test]
        fn merged_spans_hold_the_same_numbers(
            spans in prop::collection::vec((0..40_u16, 0..5_u16), 0..12),
            at in prop::sample::select(vec![0, u16::MAX - 44]),
        ) {
            let spans = spans.into_iter().map(|(first, more)| (at + first, at + first + more));
            let spans: Vec<Span> = spans.collect();
            let numbers: BTreeSet<u16> = spans.iter().flat_map(|(a, b)| *a..=*b).collect();
            let merged = merged(spans.into_iter());
            let held: Vec<u16> = merged.iter().flat_map(|(a, b)| *a..=*b).collect();
            prop_assert_eq!(&held, &numbers.iter().copied().collect::<Vec<_>>());
            prop_assert!(merged.windows(2).all(|two| two[0].1 + 1 < two[1].0));
            let even = |number: u16| number.is_multiple_of(2);
            let all = (at + 3..=at + 20).all(|n| numbers.contains(&n) || even(n));
            let among = merged.iter().filter(|(_, last)| *last >= at + 3);
            let among: Vec<Span> = among.copied().take_while(|(a, _)| *a <= at + 20).collect();
            prop_assert_eq!(are_all(&among, (at + 3, at + 20), even), all);
        }
    }
}

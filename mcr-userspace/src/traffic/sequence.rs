//! Loss, order and duplicates of one stream, from its sequence numbers alone.

/// How far behind the highest sequence number a datagram may come and still be told from a
/// duplicate: half a second at 130 000 datagrams a second, for 8 KiB a stream.
pub const WINDOW: u64 = 65_536;

const WORD_BITS: u64 = u64::BITS as u64;
const WORDS: usize = (WINDOW / WORD_BITS) as usize;

/// What a sequence number turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Higher than all before it.
    InOrder,
    /// New, but lower than one that came before it (RFC 4737, section 3.3).
    Reordered,
    /// Seen before.
    Duplicate,
    /// More than [`WINDOW`] behind: new or a duplicate, nobody can tell. It stays lost.
    Late,
}

/// The account of one stream. Memory is bounded whatever arrives; there is no clock in it.
///
/// The stream begins at 0 if the receiver was there from the beginning, else at the lowest number
/// seen: what was sent before the receiver came is not lost.
#[derive(Debug, Clone)]
pub struct Sequence {
    from_start: bool,
    /// The lowest and the highest number seen.
    range: Option<(u64, u64)>,
    /// Bit `n % WINDOW` says whether `n` was seen, for the numbers within the window.
    seen: Box<[u64; WORDS]>,
    received: u64,
    reordered: u64,
    duplicates: u64,
    late: u64,
    missing_at_end: u64,
}

impl Sequence {
    /// An empty account; `from_start` if the receiver was there when number 0 was sent.
    #[must_use]
    pub fn new(from_start: bool) -> Self {
        Self {
            from_start,
            range: None,
            seen: Box::new([0; WORDS]),
            received: 0,
            reordered: 0,
            duplicates: 0,
            late: 0,
            missing_at_end: 0,
        }
    }

    /// Takes the next sequence number, in the order of arrival.
    pub fn observe(&mut self, number: u64) -> Arrival {
        let Some((lowest, highest)) = self.range else {
            self.range = Some((number, number));
            return self.first_seen(number, Arrival::InOrder);
        };
        if number > highest {
            self.forget(highest, number);
            self.range = Some((lowest, number));
            self.first_seen(number, Arrival::InOrder)
        } else if highest - number >= WINDOW {
            self.late += 1;
            Arrival::Late
        } else if self.is_seen(number) {
            self.duplicates += 1;
            Arrival::Duplicate
        } else {
            self.range = Some((lowest.min(number), highest));
            self.reordered += 1;
            self.first_seen(number, Arrival::Reordered)
        }
    }

    /// Says that the stream had `total` datagrams and that no more will come, so that those
    /// behind the highest number seen are lost.
    pub fn end(&mut self, total: u64) {
        if let Some((_, highest)) = self.range {
            self.missing_at_end = total.saturating_sub(1).saturating_sub(highest);
        }
    }

    /// Different datagrams that came.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Datagrams that did not come, up to the highest number seen or the end.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let Some((lowest, highest)) = self.range else {
            return 0;
        };
        let first = if self.from_start { 0 } else { lowest };
        // One less on both sides, so that a span of 2^64 numbers does not overflow.
        ((highest - first) - (self.received - 1)).saturating_add(self.missing_at_end)
    }

    /// Datagrams that came behind a higher number.
    #[must_use]
    pub fn reordered(&self) -> u64 {
        self.reordered
    }

    /// Datagrams that came again.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Datagrams that came more than [`WINDOW`] behind.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late
    }

    /// The highest number seen.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.range.map(|(_, highest)| highest)
    }

    fn first_seen(&mut self, number: u64, arrival: Arrival) -> Arrival {
        let (word, bit) = place(number);
        self.seen[word] |= bit;
        self.received += 1;
        arrival
    }

    fn is_seen(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.seen[word] & bit != 0
    }

    /// Moves the window from `highest` to `number`: their places held older numbers.
    fn forget(&mut self, highest: u64, number: u64) {
        if number - highest >= WINDOW {
            self.seen.fill(0);
            return;
        }
        for newer in highest + 1..=number {
            let (word, bit) = place(newer);
            self.seen[word] &= !bit;
        }
    }
}

fn place(number: u64) -> (usize, u64) {
    let at = number % WINDOW;
    ((at / WORD_BITS) as usize, 1 << (at % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The same account kept the naive way: all numbers ever seen, in a set.
    #[derive(Default)]
    struct Model {
        seen: BTreeSet<u64>,
        reordered: u64,
        duplicates: u64,
        late: u64,
    }

    impl Model {
        fn observe(&mut self, number: u64) -> Arrival {
            let highest = self.seen.last().copied();
            if highest.is_some_and(|highest| number + WINDOW <= highest) {
                self.late += 1;
                Arrival::Late
            } else if !self.seen.insert(number) {
                self.duplicates += 1;
                Arrival::Duplicate
            } else if highest.is_some_and(|highest| number < highest) {
                self.reordered += 1;
                Arrival::Reordered
            } else {
                Arrival::InOrder
            }
        }

        fn lost(&self, from_start: bool, total: Option<u64>) -> u64 {
            let (Some(lowest), Some(highest)) = (self.seen.first(), self.seen.last()) else {
                return 0;
            };
            let first = if from_start { 0 } else { *lowest };
            let end = total.unwrap_or(0).max(highest + 1);
            (end - first) - self.seen.len() as u64
        }
    }

    /// Numbers as networks deliver them: mostly the next one, sometimes near, sometimes far.
    fn arrivals() -> impl Strategy<Value = Vec<u64>> {
        let step = prop_oneof![
            8 => Just(1_i64),
            4 => -8..8_i64,
            1 => -70_000..70_000_i64,
            1 => prop_oneof![Just(65_535_i64), Just(65_536), Just(-65_535), Just(-65_536), Just(-65_537)],
        ];
        (0..200_000_u64, prop::collection::vec(step, 0..300)).prop_map(|(start, steps)| {
            let mut at = start;
            let mut numbers = vec![start];
            for step in steps {
                at = at.saturating_add_signed(step);
                numbers.push(at);
            }
            numbers
        })
    }

    proptest! {
        #[test]
        fn the_account_is_that_of_the_naive_model(
            numbers in arrivals(),
            from_start in any::<bool>(),
            total in prop::option::of(0..400_000_u64),
        ) {
            let mut sequence = Sequence::new(from_start);
            let mut model = Model::default();
            for number in numbers {
                prop_assert_eq!(sequence.observe(number), model.observe(number), "{}", number);
                prop_assert_eq!(sequence.received(), model.seen.len() as u64);
                prop_assert_eq!(sequence.lost(), model.lost(from_start, None));
            }
            prop_assert_eq!(sequence.reordered(), model.reordered);
            prop_assert_eq!(sequence.duplicates(), model.duplicates);
            prop_assert_eq!(sequence.late(), model.late);
            prop_assert_eq!(sequence.highest(), model.seen.last().copied());
            if let Some(total) = total {
                sequence.end(total);
                prop_assert_eq!(sequence.lost(), model.lost(from_start, Some(total)));
            }
        }

        /// Whatever order they come in and however often: when all have come, none is lost.
        #[test]
        fn a_complete_stream_has_no_loss(
            numbers in Just((0..500_u64).collect::<Vec<_>>()).prop_shuffle(),
            again in prop::collection::vec(0..500_u64, 0..50),
        ) {
            let mut sequence = Sequence::new(true);
            for number in numbers.iter().chain(&again) {
                sequence.observe(*number);
            }
            sequence.end(500);
            prop_assert_eq!((sequence.received(), sequence.lost()), (500, 0));
            prop_assert_eq!(sequence.duplicates(), again.len() as u64);
        }
    }

    #[test]
    fn the_whole_range_of_numbers_does_not_overflow() {
        let mut sequence = Sequence::new(true);
        sequence.observe(u64::MAX);
        assert_eq!(sequence.lost(), u64::MAX);
        assert_eq!(sequence.observe(0), Arrival::Late);
        sequence.end(u64::MAX);
        assert_eq!(sequence.lost(), u64::MAX);
    }

    #[test]
    fn nothing_received_is_not_called_lost() {
        let mut sequence = Sequence::new(true);
        sequence.end(10);
        assert_eq!(sequence.lost(), 0);
    }
}

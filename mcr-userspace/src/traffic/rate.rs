//! How fast to send, and when the next datagram is due.

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// A sending rate, as `1000pps`, `10mbps` or `max`.
///
/// Bits are those of the UDP payload: the same rate gives the same payload whatever the headers
/// below it are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// Thousandths of a datagram in a second, so that `0.5pps` can be said; never 0.
    Datagrams(u64),
    /// Thousandths of a bit of UDP payload in a second; never 0.
    Bits(u64),
    /// As fast as it goes.
    Max,
}

/// What is wrong with a rate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RateError {
    /// Not a number and a unit.
    #[error("`{0}` is not a rate; write 1000pps, 50kpps, 400kbps, 10mbps, 1gbps or max")]
    Syntax(String),
    /// Nothing would ever be sent, or a number without end.
    #[error("a rate lies between 0.001 and 1000000000000 of its unit")]
    Range,
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let lower = text.trim().to_ascii_lowercase();
        if lower == "max" {
            return Ok(Self::Max);
        }
        let syntax = || RateError::Syntax(text.to_owned());
        let unit_at = lower
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(syntax)?;
        let (number, unit) = lower.split_at(unit_at);
        let (make, factor): (fn(u64) -> Self, u128) = match unit.trim_start() {
            "pps" => (Self::Datagrams, 1),
            "kpps" => (Self::Datagrams, 1_000),
            "mpps" => (Self::Datagrams, 1_000_000),
            "bps" | "bit/s" => (Self::Bits, 1),
            "kbps" | "kbit/s" => (Self::Bits, 1_000),
            "mbps" | "mbit/s" => (Self::Bits, 1_000_000),
            "gbps" | "gbit/s" => (Self::Bits, 1_000_000_000),
            _ => return Err(syntax()),
        };
        let thousandths = nano_units(number).ok_or_else(syntax)? * factor / 1_000_000;
        match u64::try_from(thousandths) {
            Ok(value @ 1..=1_000_000_000_000_000) => Ok(make(value)),
            _ => Err(RateError::Range),
        }
    }
}

/// A decimal number with up to nine places, in billionths.
fn nano_units(number: &str) -> Option<u128> {
    let (whole, places) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || whole.len() > 15 || places.len() > 9 || places.contains('.') {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let places: u128 = format!("{places:0<9}").parse().ok()?;
    Some(whole * 1_000_000_000 + places)
}

/// Says how many datagrams are due, on a schedule that does not drift: the n-th is due n intervals
/// after the start, however late the one before it was.
///
/// Who falls behind catches up, but not by more than [`Pacer::MOST_BEHIND`]: a sender that was
/// suspended must not flood the link with all it has missed. Takes time as an argument.
#[derive(Debug, Clone)]
pub struct Pacer {
    /// An interval is `numerator / denominator` nanoseconds; a numerator of 0 is no pacing.
    numerator: u128,
    denominator: u128,
    origin: Duration,
    taken: u64,
}

impl Pacer {
    /// How much of a pause is made up for.
    pub const MOST_BEHIND: Duration = Duration::from_secs(1);

    /// A schedule that begins at `start`, for datagrams of `payload` bytes.
    #[must_use]
    pub fn new(rate: Rate, payload: usize, start: Duration) -> Self {
        // Thousandths in the denominator, nanoseconds in the numerator.
        const SECOND: u128 = 1_000_000_000 * 1_000;
        let (numerator, denominator) = match rate {
            Rate::Datagrams(thousandths) => (SECOND, thousandths),
            Rate::Bits(thousandths) => (SECOND * 8 * payload.max(1) as u128, thousandths),
            Rate::Max => (0, 1),
        };
        Self {
            numerator,
            denominator: u128::from(denominator.max(1)),
            origin: start,
            taken: 0,
        }
    }

    /// The planned time between two datagrams; zero for [`Rate::Max`].
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.offset(1)
    }

    /// When the next datagram is due.
    #[must_use]
    pub fn next_due(&self) -> Duration {
        self.origin.saturating_add(self.offset(self.taken))
    }

    /// How many datagrams are due at `now` and have not been taken.
    pub fn due(&mut self, now: Duration) -> u64 {
        if self.numerator == 0 {
            return u64::MAX;
        }
        let behind = now.saturating_sub(self.next_due());
        self.origin = self
            .origin
            .saturating_add(behind.saturating_sub(Self::MOST_BEHIND));
        let Some(elapsed) = now.checked_sub(self.origin) else {
            return 0;
        };
        let begun = elapsed.as_nanos() * self.denominator / self.numerator + 1;
        u64::try_from(begun)
            .unwrap_or(u64::MAX)
            .saturating_sub(self.taken)
    }

    /// Marks `count` datagrams as sent.
    pub fn take(&mut self, count: u64) {
        self.taken += count;
    }

    fn offset(&self, count: u64) -> Duration {
        // Rounded up, so that a datagram is due when its time is reported to have come.
        let ns = (u128::from(count) * self.numerator).div_ceil(self.denominator);
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}

/// Bits in a second as people read them, with decimal prefixes.
///
/// ```
/// assert_eq!(mcr::traffic::rate::human_bits(9_600_000.0), "9.60 Mbit/s");
/// ```
#[must_use]
pub fn human_bits(bits_per_second: f64) -> String {
    match bits_per_second {
        bits if bits >= 1e9 => format!("{:.2} Gbit/s", bits / 1e9),
        bits if bits >= 1e6 => format!("{:.2} Mbit/s", bits / 1e6),
        bits if bits >= 1e3 => format!("{:.2} kbit/s", bits / 1e3),
        bits => format!("{bits:.0} bit/s"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_decimal_and_fractions_are_kept() {
        for (text, rate) in [
            ("1000pps", Rate::Datagrams(1_000_000)),
            ("0.5pps", Rate::Datagrams(500)),
            ("50kpps", Rate::Datagrams(50_000_000)),
            ("1.5mbps", Rate::Bits(1_500_000_000)),
            ("400 kbit/s", Rate::Bits(400_000_000)),
            ("1Gbps", Rate::Bits(1_000_000_000_000)),
            ("MAX", Rate::Max),
        ] {
            assert_eq!(text.parse(), Ok(rate), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_rate_is_refused() {
        for text in [
            "",
            "1000",
            "pps",
            "-1pps",
            "1.2.3pps",
            "1e3pps",
            ".5pps",
            "10 furlongs",
        ] {
            assert_eq!(
                text.parse::<Rate>(),
                Err(RateError::Syntax(text.to_owned())),
                "{text}"
            );
        }
        for text in ["0pps", "0.0001pps", "0mbps", "100000000gbps"] {
            assert_eq!(text.parse::<Rate>(), Err(RateError::Range), "{text}");
        }
    }

    #[test]
    fn bits_are_those_of_the_payload() {
        let pacer = Pacer::new("1mbps".parse().unwrap(), 1250, Duration::ZERO);
        assert_eq!(pacer.interval(), Duration::from_millis(10));
    }

    #[test]
    fn a_long_pause_is_not_made_up_for() {
        let mut pacer = Pacer::new(Rate::Datagrams(1_000_000), 100, Duration::ZERO);
        assert_eq!(pacer.due(Duration::from_millis(999)), 1000);
        assert_eq!(pacer.due(Duration::from_hours(1)), 1001);
    }

    proptest! {
        /// Woken exactly when it asks to be, the pacer gives one datagram at a time and the n-th
        /// comes n intervals after the start, to the nanosecond.
        #[test]
        fn the_schedule_does_not_drift(thousandths in 1_u64..10_000_000_000, start in 0_u64..1 << 40) {
            let start = Duration::from_nanos(start);
            let mut pacer = Pacer::new(Rate::Datagrams(thousandths), 0, start);
            for n in 0..200_u64 {
                let due = pacer.next_due();
                let exact = (u128::from(n) * 1_000_000_000_000).div_ceil(u128::from(thousandths));
                prop_assert_eq!(due.saturating_sub(start).as_nanos(), exact);
                if let Some(before) = due.checked_sub(Duration::from_nanos(1)) {
                    prop_assert_eq!(pacer.due(before), 0);
                }
                prop_assert!(pacer.due(due) >= 1);
                pacer.take(1);
            }
        }

        /// However late it is woken, it never gives more than the rate allows.
        #[test]
        fn the_rate_is_never_exceeded(thousandths in 1_000_u64..100_000_000, wakes in prop::collection::vec(0_u64..50_000_000, 1..50)) {
            let mut pacer = Pacer::new(Rate::Datagrams(thousandths), 0, Duration::ZERO);
            let (mut now, mut sent) = (0, 0);
            for wake in wakes {
                now += wake;
                let due = pacer.due(Duration::from_nanos(now));
                pacer.take(due);
                sent += due;
                let allowed = u128::from(now) * u128::from(thousandths) / 1_000_000_000_000 + 1;
                prop_assert_eq!(u128::from(sent), allowed);
            }
        }

        #[test]
        fn nothing_panics(text in "[0-9.]{0,30}[a-z/]{0,6}") {
            let _ = text.parse::<Rate>();
        }
    }
}

//! How many frames or bits a second a relay takes (`limit`).
//!
//! A token bucket as one number: the moment at which the bucket would be full again (the
//! "theoretical arrival time" of ITU-T I.371's generic cell rate algorithm). Each frame taken
//! moves it on by the time the frame is worth; it may be so far in the future as the burst is
//! long.

/// How long a relay may be above its limit, in nanoseconds, after it was below.
pub(super) const BURST: u64 = 100_000_000;

/// What a frame is worth, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Limit {
    /// Each frame, in 2^-14 nanoseconds.
    frame: u64,
    /// Each byte, in 2^-14 nanoseconds.
    byte: u64,
}

const _: () = assert!(size_of::<Limit>() == 16);

const SECOND: u64 = 1_000_000_000 << Limit::FRACTION;

impl Limit {
    const FRACTION: u32 = 14;

    /// So many frames a second; 0 counts as 1.
    #[must_use]
    pub const fn frames(rate: u64) -> Self {
        Self {
            frame: SECOND / if rate == 0 { 1 } else { rate },
            byte: 0,
        }
    }

    /// So many bits a second, from the Ethernet header on; 16 at least.
    #[must_use]
    pub const fn bits(rate: u64) -> Self {
        // So that no product overflows, less than 16 bits a second are 16. The product of a second
        // and 8 fits as well.
        let rate = if rate < 16 { 16 } else { rate };
        let byte = SECOND * 8 / rate;
        Self { frame: 0, byte }
    }

    /// What so many frames, which have so many bytes together, are worth in nanoseconds.
    #[must_use]
    #[inline(always)]
    pub const fn worth(&self, frames: u32, bytes: u32) -> u64 {
        // No frame has more of either; larger numbers could overflow.
        let frames = (frames & 0xffff) as u64;
        let bytes = (bytes & 0xf_ffff) as u64;
        (self.frame * frames + self.byte * bytes) >> Self::FRACTION
    }
}

/// The state of a token bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Bucket {
    /// When it would be full again: `CLOCK_MONOTONIC`, nanoseconds.
    pub full: u64,
    /// Frames that found it empty.
    pub over: u64,
}

const _: () = assert!(size_of::<Bucket>() == 16);

/// What a frame does to a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// It is over the limit.
    Over,
    /// It is taken: the moment at which the bucket is full again moves on by what it is worth.
    Taken,
    /// It is taken, by a bucket that has been full since: the moment at which it is full again
    /// is this one.
    First(u64),
}

/// Whether a frame worth so much is taken `now` by a bucket that is full again at `full`.
///
/// Several CPUs ask at the same time, and 5.10 has no compare-and-swap for programs. So the
/// moment is only ever added to while the limit is at work; if two find the bucket full at once, one
/// of their frames is not counted, once in an idle time.
#[must_use]
#[inline(always)]
pub const fn take(full: u64, now: u64, worth: u64) -> Take {
    if full <= now {
        return Take::First(now.saturating_add(worth));
    }
    // The first frame is always taken, or a small limit would take no large frame ever.
    if full - now > BURST.saturating_sub(if worth < BURST { worth } else { BURST }) {
        return Take::Over;
    }
    Take::Taken
}

#[cfg(feature = "user")]
mod pod {
    #![expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]

    use super::{Bucket, Limit};

    // SAFETY: repr(C), two u64 fields.
    unsafe impl aya::Pod for Limit {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Bucket {}
}

#[cfg(test)]
mod tests {
    use super::{BURST, Limit, Take, take};

    /// How many frames of so many bytes are taken of one every `gap` nanoseconds in `time`.
    fn taken(limit: Limit, bytes: u32, gap: u64, time: u64) -> u64 {
        let (mut full, mut count) = (0, 0);
        for now in (1_000_000_000..1_000_000_000 + time).step_by(usize::try_from(gap).unwrap()) {
            match take(full, now, limit.worth(1, bytes)) {
                Take::Over => continue,
                Take::Taken => full += limit.worth(1, bytes),
                Take::First(moment) => full = moment,
            }
            count += 1;
        }
        count
    }

    #[test]
    fn the_rate_and_a_burst_are_taken() {
        const SECOND: u64 = 1_000_000_000;
        for rate in [1_000, 50_000, 333_333] {
            let burst = rate * BURST / SECOND;
            let count = taken(Limit::frames(rate), 100, 1_000, SECOND);
            let want = rate + burst;
            assert!(count.abs_diff(want) <= 2 + want / 100, "{rate}: {count}");
        }
        // 400 Mbit/s in frames of 1000 bytes are 50 000 a second.
        let count = taken(Limit::bits(400_000_000), 1000, 5_000, SECOND);
        assert!(count.abs_diff(55_000) <= 100, "{count}");
        // 100 Gbit/s are more than there is.
        let count = taken(Limit::bits(100_000_000_000), 1000, 5_000, SECOND);
        assert_eq!(count, 200_000);
    }

    #[test]
    fn what_stays_below_the_limit_loses_nothing() {
        assert_eq!(
            taken(Limit::frames(1000), 100, 1_000_001, 1_000_000_000),
            1000
        );
    }

    #[test]
    fn a_frame_larger_than_the_burst_is_taken_now_and_then() {
        // A frame of 1500 bytes is worth 12 s.
        assert_eq!(
            taken(Limit::bits(1000), 1500, 10_000_000, 24_000_000_000),
            2
        );
        assert_eq!(
            taken(Limit::frames(1), 1500, 10_000_000, 10_000_000_000),
            10
        );
    }

    #[test]
    fn no_rate_overflows() {
        for limit in [
            Limit::frames(0),
            Limit::frames(u64::MAX),
            Limit::bits(0),
            Limit::bits(u64::MAX),
        ] {
            let worth = limit.worth(u32::MAX, u32::MAX);
            let _ = take(u64::MAX, 0, worth);
            let _ = take(0, u64::MAX, worth);
        }
    }
}

//! Times as floating-point codes: RFC 9776 sections 4.1.1 and 4.1.7, RFC 9777 section 5.1.3.

/// The value of a code of 8 bits: as it is below 128, else with an exponent of 3 bits and a
/// mantissa of 4.
pub(super) fn decode8(code: u8) -> u64 {
    if code < 0x80 {
        return code.into();
    }
    let exponent = code >> 4 & 7;
    (u64::from(code & 0xf) | 0x10) << (exponent + 3)
}

/// The code of the largest value of 8 bits that is no larger than this one.
pub(super) fn encode8(value: u64) -> u8 {
    (0..=u8::MAX)
        .rfind(|code| decode8(*code) <= value)
        .unwrap_or(0)
}

/// The value of a code of 16 bits: as it is below 32768, else with an exponent of 3 bits and a
/// mantissa of 12.
pub(super) fn decode16(code: u16) -> u64 {
    if code < 0x8000 {
        return code.into();
    }
    let exponent = code >> 12 & 7;
    (u64::from(code & 0xfff) | 0x1000) << (exponent + 3)
}

/// The code of the largest value of 16 bits that is no larger than this one.
pub(super) fn encode16(value: u64) -> u16 {
    if let Ok(code @ 0..0x8000) = u16::try_from(value) {
        return code;
    }
    let exponent = (0..8).rfind(|exponent| 0x1000 << (exponent + 3) <= value);
    let exponent = exponent.unwrap_or(0);
    let mantissa = u16::try_from(value >> (exponent + 3)).unwrap_or(u16::MAX);
    let mantissa = mantissa.min(0x1fff) & 0xfff;
    0x8000 | exponent << 12 | mantissa
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The figures of RFC 9776 section 4.1.1 and of RFC 9777 section 5.1.3 for the borders.
    #[test]
    fn codes_are_those_of_the_standards() {
        for (code, value) in [(0, 0), (127, 127), (128, 128), (129, 136), (255, 31744)] {
            assert_eq!(decode8(code), value);
            assert_eq!(encode8(value), code);
        }
        for (code, value) in [
            (0, 0),
            (10_000, 10_000),
            (0x7fff, 32767),
            (0x8000, 32768),
            (0x8001, 32776),
            (0xffff, 8_387_584),
        ] {
            assert_eq!(decode16(code), value);
            assert_eq!(encode16(value), code);
        }
        assert_eq!(encode8(u64::MAX), 255);
        assert_eq!(encode16(u64::MAX), 0xffff);
    }

    #[test]
    fn a_code_never_says_more_than_was_meant() {
        for value in 0..40_000 {
            assert!(decode8(encode8(value)) <= value);
            assert!(decode16(encode16(value)) <= value);
        }
        for code in 0..=u16::MAX {
            assert_eq!(encode16(decode16(code)), code);
        }
        for code in 0..=u8::MAX {
            assert_eq!(encode8(decode8(code)), code);
        }
    }
}

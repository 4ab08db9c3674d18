//! Instructions of eBPF (Documentation/bpf/standardization/instruction-set.rst), written one by
//! one.

use std::os::fd::RawFd;

/// A register; 10 is the frame pointer, 1 to 5 are arguments of helpers, 6 to 9 outlive them.
pub(crate) type Register = u8;

/// How many bytes are read or written at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Two = 0x08,
    Four = 0x00,
    Eight = 0x18,
}

/// Conditions of jumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum If {
    /// The register is this number.
    Equal = 0x15,
    /// The register is greater than this number.
    Greater = 0x25,
    /// The register is not this number.
    NotEqual = 0x55,
}

/// A program that is being written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Code {
    words: Vec<u64>,
    /// Jumps whose goal is [`Self::leave`].
    leaving: Vec<usize>,
}

impl Code {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The instructions so far.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// One register becomes what another is.
    pub(crate) fn copy(&mut self, to: Register, from: Register) -> &mut Self {
        self.instruction(0xbf, to, from, 0, 0)
    }

    /// A register becomes a number.
    pub(crate) fn set(&mut self, to: Register, value: i32) -> &mut Self {
        self.instruction(0xb7, to, 0, 0, value)
    }

    /// A number is added to a register.
    pub(crate) fn add(&mut self, to: Register, value: i32) -> &mut Self {
        self.instruction(0x07, to, 0, 0, value)
    }

    /// What one register is, is taken away from another.
    pub(crate) fn subtract(&mut self, to: Register, what: Register) -> &mut Self {
        self.instruction(0x1f, to, what, 0, 0)
    }

    /// A register becomes what memory holds.
    pub(crate) fn load(&mut self, width: Width, to: Register, from: (Register, i16)) -> &mut Self {
        self.instruction(0x61 | width as u8, to, from.0, from.1, 0)
    }

    /// Memory becomes what a register is.
    pub(crate) fn store(&mut self, width: Width, to: (Register, i16), from: Register) -> &mut Self {
        self.instruction(0x63 | width as u8, to.0, from, to.1, 0)
    }

    /// Memory becomes these bytes, an even number of them.
    pub(crate) fn bytes(&mut self, to: (Register, i16), bytes: &[u8]) -> &mut Self {
        let mut offset = to.1;
        for part in bytes.chunks(4) {
            let mut word = [0; 4];
            word[..part.len()].copy_from_slice(part);
            let width = if part.len() == 4 {
                Width::Four
            } else {
                Width::Two
            };
            self.instruction(
                0x62 | width as u8,
                to.0,
                0,
                offset,
                i32::from_le_bytes(word),
            );
            offset += 4;
        }
        self
    }

    /// What a register is, is added to eight bytes of memory, whoever else does.
    pub(crate) fn atomic_add(&mut self, to: (Register, i16), from: Register) -> &mut Self {
        self.instruction(0xdb, to.0, from, to.1, 0)
    }

    /// Calls a helper of the kernel.
    pub(crate) fn call(&mut self, helper: i32) -> &mut Self {
        self.instruction(0x85, 0, 0, 0, helper)
    }

    /// A register becomes a map, as helpers want it.
    pub(crate) fn map(&mut self, to: Register, map: RawFd) -> &mut Self {
        self.instruction(0x18, to, 1, 0, map)
            .instruction(0, 0, 0, 0, 0)
    }

    /// A register becomes the address of a byte of an array's only value.
    pub(crate) fn value(&mut self, to: Register, map: RawFd, byte: i32) -> &mut Self {
        self.instruction(0x18, to, 2, 0, map)
            .instruction(0, 0, 0, 0, byte)
    }

    /// Goes to where [`Self::land`] is told of the result, if a register is so.
    pub(crate) fn jump_if(&mut self, register: Register, how: If, value: i32) -> usize {
        self.instruction(how as u8, register, 0, 0, value);
        self.words.len() - 1
    }

    /// A jump ends here.
    pub(crate) fn land(&mut self, place: usize) -> &mut Self {
        let [code, registers, _, _, rest @ ..] = self.words[place].to_le_bytes();
        // Programs here are far shorter than 2^15.
        let [a, b] = i16::try_from(self.words.len() - place - 1)
            .unwrap_or(i16::MAX)
            .to_le_bytes();
        let [c, d, e, f] = rest;
        self.words[place] = u64::from_le_bytes([code, registers, a, b, c, d, e, f]);
        self
    }

    /// Goes to [`Self::leave`] if a register is so.
    pub(crate) fn leave_if(&mut self, register: Register, how: If, value: i32) -> &mut Self {
        self.leaving.push(self.words.len());
        self.instruction(how as u8, register, 0, 0, value)
    }

    /// Goes to [`Self::leave`] if one register is greater than another.
    pub(crate) fn leave_if_beyond(&mut self, register: Register, other: Register) -> &mut Self {
        self.leaving.push(self.words.len());
        self.instruction(0x2d, register, other, 0, 0)
    }

    /// Ends with a verdict.
    pub(crate) fn end(&mut self, verdict: i32) -> &mut Self {
        self.set(0, verdict).ret()
    }

    /// Ends with what the last helper returned as verdict.
    pub(crate) fn ret(&mut self) -> &mut Self {
        self.instruction(0x95, 0, 0, 0, 0)
    }

    /// What happens to frames of no interest: the end of the program.
    pub(crate) fn leave(&mut self, verdict: i32) -> &mut Self {
        if self.leaving.is_empty() {
            // The verifier refuses instructions that nothing leads to.
            return self;
        }
        for place in std::mem::take(&mut self.leaving) {
            self.land(place);
        }
        self.end(verdict)
    }

    fn instruction(
        &mut self,
        code: u8,
        to: Register,
        from: Register,
        offset: i16,
        value: i32,
    ) -> &mut Self {
        let [a, b] = offset.to_le_bytes();
        let [c, d, e, f] = value.to_le_bytes();
        let word = u64::from_le_bytes([code, from << 4 | to, a, b, c, d, e, f]);
        self.words.push(word);
        self
    }
}

//! Calculations and conditions.

use anyhow::{Result, bail, ensure};
use aya_obj::generated::bpf_insn;

use super::Machine;

impl Machine<'_> {
    /// The operand: a register, or a number in the instruction.
    fn operand(&self, instruction: bpf_insn) -> u64 {
        if instruction.code & 0x08 == 0 {
            i64::from(instruction.imm).cast_unsigned()
        } else {
            self.source(instruction)
        }
    }

    pub(super) fn calculate(&mut self, instruction: bpf_insn) -> Result<()> {
        let (target, operand) = (*self.target(instruction), self.operand(instruction));
        let wide = instruction.code & 0x07 == 0x07;
        let operation = instruction.code & 0xf0;
        ensure!(
            instruction.off == 0,
            "signed division and moves are not known"
        );
        let value = match operation {
            0xd0 => swapped(target, instruction)?,
            _ if wide => wide_value(operation, target, operand)?,
            _ => narrow_value(operation, low(target), low(operand))?.into(),
        };
        *self.target(instruction) = value;
        Ok(())
    }

    /// Whether a condition of a jump holds.
    pub(super) fn holds(&mut self, instruction: bpf_insn) -> Result<bool> {
        let (mut a, mut b) = (*self.target(instruction), self.operand(instruction));
        let (mut signed_a, mut signed_b) = (a.cast_signed(), b.cast_signed());
        if instruction.code & 0x07 == 0x06 {
            (a, b) = (low(a).into(), low(b).into());
            (signed_a, signed_b) = (low(a).cast_signed().into(), low(b).cast_signed().into());
        }
        Ok(match instruction.code & 0xf0 {
            0x10 => a == b,
            0x20 => a > b,
            0x30 => a >= b,
            0x40 => a & b != 0,
            0x50 => a != b,
            0x60 => signed_a > signed_b,
            0x70 => signed_a >= signed_b,
            0xa0 => a < b,
            0xb0 => a <= b,
            0xc0 => signed_a < signed_b,
            0xd0 => signed_a <= signed_b,
            other => bail!("unknown condition {other:#x}"),
        })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "that is what is asked for")]
fn low(value: u64) -> u32 {
    value as u32
}

fn wide_value(operation: u8, a: u64, b: u64) -> Result<u64> {
    Ok(match operation {
        0x00 => a.wrapping_add(b),
        0x10 => a.wrapping_sub(b),
        0x20 => a.wrapping_mul(b),
        0x30 => a.checked_div(b).unwrap_or_default(),
        0x40 => a | b,
        0x50 => a & b,
        0x60 => a.wrapping_shl(low(b)),
        0x70 => a.wrapping_shr(low(b)),
        0x80 => a.wrapping_neg(),
        0x90 => a.checked_rem(b).unwrap_or(a),
        0xa0 => a ^ b,
        0xb0 => b,
        0xc0 => a.cast_signed().wrapping_shr(low(b)).cast_unsigned(),
        other => bail!("unknown operation {other:#x}"),
    })
}

fn narrow_value(operation: u8, a: u32, b: u32) -> Result<u32> {
    Ok(match operation {
        0x00 => a.wrapping_add(b),
        0x10 => a.wrapping_sub(b),
        0x20 => a.wrapping_mul(b),
        0x30 => a.checked_div(b).unwrap_or_default(),
        0x40 => a | b,
        0x50 => a & b,
        0x60 => a.wrapping_shl(b),
        0x70 => a.wrapping_shr(b),
        0x80 => a.wrapping_neg(),
        0x90 => a.checked_rem(b).unwrap_or(a),
        0xa0 => a ^ b,
        0xb0 => b,
        0xc0 => a.cast_signed().wrapping_shr(b).cast_unsigned(),
        other => bail!("unknown operation {other:#x}"),
    })
}

/// A number in the order of bytes that is asked for, on a little-endian machine.
fn swapped(value: u64, instruction: bpf_insn) -> Result<u64> {
    let swap = instruction.code & 0x0f != 0x04;
    let bits = instruction.imm;
    ensure!(matches!(bits, 16 | 32 | 64), "no number has {bits} bits");
    let shift = 64 - bits.cast_unsigned();
    Ok(if swap {
        value.swap_bytes() >> shift
    } else {
        value << shift >> shift
    })
}

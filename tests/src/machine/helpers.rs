//! Helpers of the kernel (`include/uapi/linux/bpf.h`), as far as programs need an answer.

use anyhow::{Context as _, Result, bail};

use super::{Machine, memory::FRAME};

/// `-EFAULT`.
const FAULT: i64 = -14;
/// A moment at which no limit was reached and nothing has timed out.
const NOW: u64 = 1 << 40;

impl Machine<'_> {
    pub(super) fn helper(&mut self, number: i32) -> Result<()> {
        let [_, a, b, c, d, _, ..] = self.registers;
        let result = match number {
            // map_lookup_elem, map_update_elem
            1 => self.look_up(a, b)?,
            2 => self.update(a, b, c)?,
            // ktime_get_ns
            5 => NOW,
            // skb_store_bytes, skb_load_bytes
            9 => self.write_frame(b, c, d)?,
            26 => self.read_frame(b, c, d)?,
            // clone_redirect, redirect
            13 | 23 => {
                self.copies += 1;
                0
            }
            // l3_csum_replace, l4_csum_replace, skb_vlan_push, skb_vlan_pop, skb_pull_data,
            // csum_update
            10 | 11 | 18 | 19 | 39 | 40 => 0,
            other => {
                bail!("helper {other} is not known here; add it to tests/src/machine/helpers.rs")
            }
        };
        self.registers[0] = result;
        // What helpers leave in registers of arguments, programs may not use.
        self.registers[1..6].fill(u64::MAX);
        Ok(())
    }

    fn look_up(&mut self, map: u64, key: u64) -> Result<u64> {
        let kind = self.program.maps.get(usize::try_from(map)?);
        let kind = kind.context("no such map")?;
        let key = self.memory.bytes(key, kind.key)?.to_vec();
        if let Some(address) = self.memory.value(map, &key) {
            return Ok(address);
        }
        let value = self.maps.get(&kind.name, &key)?;
        Ok(value.map_or(0, |value| self.memory.add_value(map, &key, value)))
    }

    fn update(&mut self, map: u64, key: u64, value: u64) -> Result<u64> {
        let kind = self.program.maps.get(usize::try_from(map)?);
        let kind = kind.context("no such map")?;
        let key = self.memory.bytes(key, kind.key)?.to_vec();
        let value = self.memory.bytes(value, kind.value)?.to_vec();
        self.maps.set(&kind.name, &key, &value)?;
        self.memory.add_value(map, &key, value);
        Ok(0)
    }

    fn read_frame(&mut self, offset: u64, to: u64, length: u64) -> Result<u64> {
        let length = usize::try_from(length)?;
        match self.memory.bytes(FRAME + offset, length) {
            Ok(bytes) => {
                let bytes = bytes.to_vec();
                self.memory.write(to, &bytes)?;
                Ok(0)
            }
            Err(_) => Ok(FAULT.cast_unsigned()),
        }
    }

    fn write_frame(&mut self, offset: u64, from: u64, length: u64) -> Result<u64> {
        let bytes = self.memory.bytes(from, usize::try_from(length)?)?.to_vec();
        match self.memory.write(FRAME + offset, &bytes) {
            Ok(()) => Ok(0),
            Err(_) => Ok(FAULT.cast_unsigned()),
        }
    }
}

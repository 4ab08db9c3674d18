//! What programs read and write: their context, stack, frame, constants, and values of maps.

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};

use super::Arrival;

/// Addresses are the number of a region and a place in it.
const REGION: u32 = 32;
/// `struct __sk_buff`.
pub(super) const CONTEXT: u64 = 1 << REGION;
pub(super) const STACK: u64 = 2 << REGION;
/// The frame.
pub(super) const FRAME: u64 = 3 << REGION;
pub(super) const CONSTANTS: u64 = 4 << REGION;

/// Where `struct __sk_buff` has its fields (`include/uapi/linux/bpf.h`).
const LENGTH: usize = 0;
const KIND: usize = 4;
const PROTOCOL: usize = 16;
const INGRESS_IFINDEX: usize = 36;
const IFINDEX: usize = 40;
const DATA: u64 = 76;
const DATA_END: u64 = 80;
const CONTEXT_LENGTH: usize = 192;

/// Regions of memory.
pub(super) struct Memory {
    regions: Vec<Vec<u8>>,
    values: HashMap<(u64, Vec<u8>), u64>,
}

impl Memory {
    pub(super) fn new(frame: &[u8], constants: &[u8], stack: usize) -> Result<Self> {
        ensure!(frame.len() >= 14, "a frame has an Ethernet header");
        Ok(Self {
            regions: vec![
                Vec::new(),
                vec![0; CONTEXT_LENGTH],
                vec![0; stack],
                frame.to_vec(),
                constants.to_vec(),
            ],
            values: HashMap::new(),
        })
    }

    /// Says what the kernel knows of the frame.
    pub(super) fn context(&mut self, arrival: &Arrival<'_>) -> Result<()> {
        let Arrival {
            frame,
            ifindex,
            to_this_host,
        } = *arrival;
        // `PACKET_*` of `include/uapi/linux/if_packet.h`.
        let kind: u32 = match frame {
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, ..] => 1,
            [first, ..] if first & 1 != 0 => 2,
            _ if to_this_host => 0,
            _ => 3,
        };
        let context = &mut self.regions[1];
        let mut set = |at: usize, value: [u8; 4]| context[at..at + 4].copy_from_slice(&value);
        set(LENGTH, u32::try_from(frame.len())?.to_le_bytes());
        set(KIND, kind.to_le_bytes());
        set(PROTOCOL, [frame[12], frame[13], 0, 0]);
        set(INGRESS_IFINDEX, ifindex.to_le_bytes());
        set(IFINDEX, ifindex.to_le_bytes());
        Ok(())
    }

    pub(super) fn load(&self, address: u64, width: usize) -> Result<u64> {
        match address.checked_sub(CONTEXT) {
            Some(DATA) => return Ok(FRAME),
            Some(DATA_END) => return Ok(FRAME + self.regions[3].len() as u64),
            _ => {}
        }
        let mut value = [0; 8];
        value[..width].copy_from_slice(self.bytes(address, width)?);
        Ok(u64::from_le_bytes(value))
    }

    pub(super) fn store(&mut self, address: u64, width: usize, value: u64) -> Result<()> {
        self.write(address, &value.to_le_bytes()[..width])
    }

    /// Bytes at an address.
    pub(super) fn bytes(&self, address: u64, length: usize) -> Result<&[u8]> {
        let (region, range) = place(address, length)?;
        let found = self.regions.get(region).and_then(|bytes| bytes.get(range));
        found.with_context(|| format!("nothing to read at {address:#x}"))
    }

    pub(super) fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        let (region, range) = place(address, bytes.len())?;
        let found = self.regions.get_mut(region);
        let found = found.and_then(|bytes| bytes.get_mut(range));
        let found = found.with_context(|| format!("nothing to write at {address:#x}"))?;
        found.copy_from_slice(bytes);
        Ok(())
    }

    /// The address of a map's value, if the program has asked for it before.
    pub(super) fn value(&self, map: u64, key: &[u8]) -> Option<u64> {
        self.values.get(&(map, key.to_vec())).copied()
    }

    /// Adds a map's value and gives its address.
    pub(super) fn add_value(&mut self, map: u64, key: &[u8], value: Vec<u8>) -> u64 {
        let address = (self.regions.len() as u64) << REGION;
        self.regions.push(value);
        self.values.insert((map, key.to_vec()), address);
        address
    }
}

fn place(address: u64, length: usize) -> Result<(usize, std::ops::Range<usize>)> {
    let region = usize::try_from(address >> REGION)?;
    let from = usize::try_from(address & ((1 << REGION) - 1))?;
    Ok((region, from..from + length))
}

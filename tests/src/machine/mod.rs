//! A machine that runs a program of the kernel and counts its instructions.
//!
//! Clocks say what a frame costs today on this computer; the number of instructions is the same
//! everywhere. The kernel does not count them, performance counters are missing in virtual machines,
//! and interpreters at hand (rbpf, solana-sbpf) do not count or speak another dialect; so this one
//! is written for the purpose. It executes what the compiler made, before the kernel makes machine
//! code of it (Documentation/bpf/standardization/instruction-set.rst), on the maps as the kernel has
//! them; what helpers do beside reading and writing the frame is left out.

mod arithmetic;
mod helpers;
mod memory;

use std::collections::HashSet;

use anyhow::{Context as _, Result, bail, ensure};
use aya_obj::{Object, generated::bpf_insn};

use memory::Memory;

/// More than any frame needs.
const MOST: u64 = 1_000_000;
/// Bytes of stack of a function.
const STACK: u16 = 512;
/// Depth of calls.
const CALLS: usize = 8;
/// `BPF_PSEUDO_MAP_FD`, `BPF_PSEUDO_MAP_VALUE` and `BPF_PSEUDO_CALL` of `include/uapi/linux/bpf.h`.
const MAP: u8 = 1;
const VALUE: u8 = 2;
const LOCAL_CALL: u8 = 1;

/// A program as the compiler made it.
#[derive(Debug)]
pub struct Program {
    instructions: Vec<bpf_insn>,
    /// Maps, by the number that instructions name them by.
    maps: Vec<MapKind>,
    constants: Vec<u8>,
}

/// What a map is like.
#[derive(Clone, Debug)]
struct MapKind {
    name: String,
    key: usize,
    value: usize,
}

/// What maps hold. What a program writes into values it has looked up is forgotten when it ends.
pub trait Maps {
    /// The value of a key in the map of this name.
    fn get(&self, map: &str, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Gives a key this value.
    fn set(&self, map: &str, key: &[u8], value: &[u8]) -> Result<()>;
}

/// A frame that arrives.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// From the destination address on.
    pub frame: &'a [u8],
    /// The index of the link it arrives on.
    pub ifindex: u32,
    /// Whether it is addressed to the link's own address.
    pub to_this_host: bool,
}

/// What a program did to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Instructions that were executed.
    pub instructions: u64,
    /// Copies that were sent; the frame itself among them, if it was.
    pub copies: usize,
}

impl Program {
    /// Reads the program `name` out of an object, with these of its global constants, by name, replaced.
    pub fn read(object: &[u8], name: &str, globals: &[(&str, &[u8])]) -> Result<Self> {
        /// Where the program's constants are.
        const CONSTANTS: &str = ".rodata";
        let mut object = Object::parse(object).context("the object cannot be read")?;
        let globals = globals.iter().map(|(name, value)| (*name, (*value, true)));
        object.patch_map_data(globals.collect())?;
        let texts: HashSet<_> = object
            .functions
            .keys()
            .map(|(section, _)| *section)
            .collect();
        let maps: Vec<_> = object.maps.clone().into_iter().collect();
        let numbered = maps.iter().zip(0..);
        object.relocate_maps(
            numbered.map(|((name, map), number)| (name.as_str(), number, map)),
            &texts,
        )?;
        object.relocate_calls(&texts)?;
        let program = object.programs.get(name);
        let program = program.with_context(|| format!("the object has no program {name}"))?;
        let function = object.functions.get(&program.function_key());
        let constants = maps.iter().find(|(name, _)| name == CONSTANTS);
        Ok(Self {
            instructions: function
                .context("a program without instructions")?
                .instructions
                .clone(),
            constants: constants
                .map(|(_, map)| map.data().to_vec())
                .unwrap_or_default(),
            maps: maps
                .iter()
                .map(|(name, map)| MapKind {
                    name: name.clone(),
                    key: map.key_size() as usize,
                    value: map.value_size() as usize,
                })
                .collect(),
        })
    }

    /// Runs it on a frame.
    pub fn run(&self, maps: &dyn Maps, arrival: &Arrival<'_>) -> Result<Counted> {
        let mut machine = Machine {
            program: self,
            memory: Memory::new(arrival.frame, &self.constants, usize::from(STACK) * CALLS)?,
            maps,
            registers: [0; 11],
            place: 0,
            calls: Vec::new(),
            copies: 0,
        };
        machine.memory.context(arrival)?;
        machine.registers[1] = memory::CONTEXT;
        machine.registers[10] = memory::STACK + u64::from(STACK);
        for instructions in 1..=MOST {
            if machine.step()? {
                return Ok(Counted {
                    instructions,
                    copies: machine.copies,
                });
            }
        }
        bail!("more than {MOST} instructions")
    }
}

/// A program at work.
struct Machine<'a> {
    program: &'a Program,
    memory: Memory,
    maps: &'a dyn Maps,
    registers: [u64; 11],
    /// The next instruction.
    place: usize,
    /// Where calls return to, with the registers that outlive them.
    calls: Vec<(usize, [u64; 5])>,
    copies: usize,
}

impl Machine<'_> {
    /// Executes an instruction. Gives whether the program has ended.
    fn step(&mut self) -> Result<bool> {
        let at = self.place;
        let instruction = self.program.instructions.get(at);
        let instruction = *instruction.context("beyond the program's end")?;
        self.place += 1;
        let done = match instruction.code & 0x07 {
            0x00 => self.load_number(instruction),
            0x01 => self.load(instruction),
            0x02 | 0x03 => self.store(instruction),
            0x04 | 0x07 => self.calculate(instruction),
            _ => {
                return self
                    .jump(instruction)
                    .with_context(|| format!("instruction {at}"));
            }
        };
        done.with_context(|| format!("instruction {at}"))?;
        Ok(false)
    }

    /// Eight bytes in two instructions: a number, a map, or the address of a constant.
    fn load_number(&mut self, instruction: bpf_insn) -> Result<()> {
        ensure!(
            instruction.code == 0x18,
            "unknown load {:#x}",
            instruction.code
        );
        let high = self.program.instructions.get(self.place);
        let high = high.context("half a number")?.imm;
        self.place += 1;
        let low = u64::from(instruction.imm.cast_unsigned());
        let value = match instruction.src_reg() {
            0 => u64::from(high.cast_unsigned()) << 32 | low,
            MAP => low,
            VALUE => memory::CONSTANTS + u64::from(high.cast_unsigned()),
            other => bail!("unknown kind of number {other}"),
        };
        *self.target(instruction) = value;
        Ok(())
    }

    fn load(&mut self, instruction: bpf_insn) -> Result<()> {
        ensure!(
            instruction.code & 0xe0 == 0x60,
            "unknown load {:#x}",
            instruction.code
        );
        let address = address(self.source(instruction), instruction);
        let value = self.memory.load(address, width(instruction))?;
        *self.target(instruction) = value;
        Ok(())
    }

    fn store(&mut self, instruction: bpf_insn) -> Result<()> {
        let base = *self.target(instruction);
        let address = address(base, instruction);
        let value = if instruction.code & 0x07 == 0x02 {
            i64::from(instruction.imm).cast_unsigned()
        } else {
            self.source(instruction)
        };
        match instruction.code & 0xe0 {
            0x60 => self.memory.store(address, width(instruction), value),
            0xc0 => self.atomic(instruction, address, value),
            _ => bail!("unknown store {:#x}", instruction.code),
        }
    }

    /// What is read and written without others in between, where there are none.
    fn atomic(&mut self, instruction: bpf_insn, address: u64, value: u64) -> Result<()> {
        const FETCH: i32 = 1;
        let width = width(instruction);
        let old = self.memory.load(address, width)?;
        let new = match instruction.imm & !FETCH {
            0x00 => old.wrapping_add(value),
            0x40 => old | value,
            0x50 => old & value,
            0xa0 => old ^ value,
            0xe0 => value,
            0xf0 if old == self.registers[0] => value,
            0xf0 => old,
            other => bail!("unknown atomic operation {other:#x}"),
        };
        self.memory.store(address, width, new)?;
        if instruction.imm & 0xf0 == 0xf0 {
            self.registers[0] = old;
        } else if instruction.imm & FETCH != 0 {
            self.registers[usize::from(instruction.src_reg())] = old;
        }
        Ok(())
    }

    fn jump(&mut self, instruction: bpf_insn) -> Result<bool> {
        match instruction.code {
            0x85 if instruction.src_reg() == LOCAL_CALL => self.enter(instruction.imm)?,
            0x85 => self.helper(instruction.imm)?,
            0x95 => return Ok(self.leave()),
            0x05 => self.go(instruction.off.into())?,
            _ => {
                if self.holds(instruction)? {
                    self.go(instruction.off.into())?;
                }
            }
        }
        Ok(false)
    }

    fn go(&mut self, offset: i64) -> Result<()> {
        let place = self.place.checked_add_signed(isize::try_from(offset)?);
        self.place = place.context("a jump before the program")?;
        Ok(())
    }

    fn enter(&mut self, offset: i32) -> Result<()> {
        ensure!(self.calls.len() + 1 < CALLS, "more than {CALLS} calls");
        let [.., a, b, c, d, stack] = self.registers;
        self.calls.push((self.place, [a, b, c, d, stack]));
        self.registers[10] += u64::from(STACK);
        self.go(offset.into())
    }

    /// Ends a function. Gives whether it was the program.
    fn leave(&mut self) -> bool {
        let Some((place, kept)) = self.calls.pop() else {
            return true;
        };
        self.place = place;
        self.registers[6..].copy_from_slice(&kept);
        false
    }

    fn source(&self, instruction: bpf_insn) -> u64 {
        self.registers[usize::from(instruction.src_reg())]
    }

    fn target(&mut self, instruction: bpf_insn) -> &mut u64 {
        &mut self.registers[usize::from(instruction.dst_reg())]
    }
}

/// The address that an instruction means.
fn address(base: u64, instruction: bpf_insn) -> u64 {
    base.wrapping_add_signed(instruction.off.into())
}

/// How many bytes a load or store is about.
fn width(instruction: bpf_insn) -> usize {
    match instruction.code & 0x18 {
        0x00 => 4,
        0x08 => 2,
        0x10 => 1,
        _ => 8,
    }
}

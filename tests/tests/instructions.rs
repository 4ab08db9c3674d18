//! A frame costs no more instructions in the kernel than is recorded, with a margin for what another
//! compiler makes of the same program; and not so many fewer that the record says nothing any more.
//!
//! The record is `tests/instructions.json`. After a change that is meant, it is written anew by this
//! test with `MCR_RECORD` set: `MCR_RECORD=1 cargo xtask test --e2e frames_cost`.

#![expect(unsafe_code, reason = "maps of unknown types are read by bpf(2)")]

use std::{
    collections::BTreeMap,
    env, fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::PathBuf,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    maps::{MapFd, MapInfo},
    programs::SchedClassifier,
};
use mcr::{
    datapath::ebpf::{OBJECT, fill},
    plan::{Table, plan},
};
use mcr_tests::{
    fixtures::{Expected, Fixture, Ingress, fixtures, world},
    machine::{Arrival, Maps, Program},
};
use nix::errno::Errno;
use serde_json::{Value, json};

/// The programs that relay what arrives.
const PROGRAMS: [&str; 1] = ["mcr_tc"];
/// What turns messages of single frames off.
const SILENT: [(&str, &[u8]); 1] = [("AYA_LOG_LEVEL", &[0])];
/// Links of the fixtures.
const LINKS: [u32; 4] = [10, 11, 12, 13];
/// How many per cent more or fewer there may be, and how many in any case.
const MARGIN: u64 = 10;
const FEW: u64 = 20;

/// The maps of a loaded program, as the kernel has them.
struct Kernel {
    /// With the length of a value.
    maps: BTreeMap<String, (MapFd, usize)>,
    cpus: usize,
}

impl Kernel {
    /// Those of the object, with the fixtures' relays in them.
    fn load(program: &str, table: &Table) -> Result<(Ebpf, Self)> {
        let mut object = Ebpf::load(OBJECT)?;
        let program = object.program_mut(program).context("no program")?;
        let program: &mut SchedClassifier = program.try_into()?;
        program.load()?;
        let ids = program
            .info()?
            .map_ids()?
            .context("the kernel names no maps")?;
        fill(&mut object, table)?;
        let mut maps = BTreeMap::new();
        for id in ids {
            let info = MapInfo::from_id(id)?;
            let name = info
                .name_as_str()
                .context("a map without a name")?
                .to_owned();
            let value = usize::try_from(info.value_size())?.next_multiple_of(8);
            maps.insert(name, (info.fd()?, value));
        }
        let kernel = Self {
            maps,
            cpus: cpus()?,
        };
        Ok((object, kernel))
    }
}

/// Of `enum bpf_cmd` in `include/uapi/linux/bpf.h`.
const LOOKUP: libc::c_int = 1;
const UPDATE: libc::c_int = 2;

/// What these take.
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Kernel {
    /// Reads or writes a value of a map.
    fn element(
        &self,
        command: libc::c_int,
        map: &str,
        key: &[u8],
        value: &mut [u8],
    ) -> Result<bool> {
        let (fd, size) = self.map(map)?;
        ensure!(value.len() >= size * self.cpus, "too little room for {map}");
        let mut element = Element {
            map: u32::try_from(fd.as_fd().as_raw_fd())?,
            padding: 0,
            key: key.as_ptr() as u64,
            value: value.as_mut_ptr() as u64,
            flags: 0,
        };
        // SAFETY: the key is as long as the map's keys are, by the object; there is room for the
        // values of all CPUs; both outlive the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command,
                &raw mut element,
                size_of::<Element>(),
            )
        };
        match Errno::result(result) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("bpf({command}) on the map {map}")),
        }
    }

    fn map(&self, name: &str) -> Result<(&MapFd, usize)> {
        let known = self.maps.get(name);
        let (fd, size) = known.with_context(|| format!("the kernel has no map {name}"))?;
        Ok((fd, *size))
    }
}

impl Maps for Kernel {
    fn get(&self, map: &str, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let size = self.map(map)?.1;
        let mut value = vec![0; size * self.cpus];
        let found = self.element(LOOKUP, map, key, &mut value)?;
        // Maps with a value for each CPU give all of them.
        value.truncate(size);
        Ok(found.then_some(value))
    }

    fn set(&self, map: &str, key: &[u8], value: &[u8]) -> Result<()> {
        let mut room = vec![0; self.map(map)?.1 * self.cpus];
        room[..value.len()].copy_from_slice(value);
        self.element(UPDATE, map, key, &mut room).map(drop)
    }
}

/// How many CPUs there may be.
fn cpus() -> Result<usize> {
    let text = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = text.trim().rsplit(['-', ',']).next().context("no CPU")?;
    Ok(last.parse::<usize>()? + 1)
}

/// Whether the machine can carry it: without a tag beside the frame.
fn fits(fixture: &Fixture) -> bool {
    fixture.stripped_tag.is_none() && fixture.frame.len() >= 14
}

/// Whether it is a part of another one: those are many, and say little.
fn is_cut(fixture: &Fixture) -> bool {
    fixture.name.contains(" bytes of ")
}

/// Instructions of each fixture, by its name.
fn counted(program: &str) -> Result<BTreeMap<String, u64>> {
    let table = plan(&world(LINKS), &Table::default())?.table;
    let (_object, kernel) = Kernel::load(program, &table)?;
    let program = Program::read(OBJECT, program, &SILENT)?;
    let mut counted = BTreeMap::new();
    for fixture in fixtures().iter().filter(|fixture| fits(fixture)) {
        let ifindex = match fixture.ingress {
            Ingress::In => LINKS[0],
            Ingress::Trunk => LINKS[3],
        };
        let arrival = Arrival {
            frame: &fixture.frame,
            ifindex,
            to_this_host: fixture.to_this_host,
        };
        let result = program.run(&kernel, &arrival);
        let result = result.with_context(|| fixture.name.clone())?;
        let copies = match &fixture.expected {
            Expected::Relay { copies, .. } => *copies,
            Expected::Pass | Expected::Refuse { .. } => 0,
        };
        ensure!(
            result.copies == copies,
            "{}: {} copies, not {copies}",
            fixture.name,
            result.copies
        );
        if !is_cut(fixture) {
            counted.insert(fixture.name.clone(), result.instructions);
        }
    }
    Ok(counted)
}

fn record() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "instructions.json"]
        .iter()
        .collect()
}

/// The compiler that made the object, by the record beside it.
fn compiler() -> Result<String> {
    let kept = [
        env!("CARGO_MANIFEST_DIR"),
        "../mcr-userspace/bpf/mcr.bpf.json",
    ];
    let kept: Value = serde_json::from_str(&fs::read_to_string(kept.iter().collect::<PathBuf>())?)?;
    let word = |name: &str| kept[name].as_str().unwrap_or_default().to_owned();
    Ok(format!("{}, {}", word("rustc"), word("linker")))
}

#[test]
fn frames_cost_as_many_instructions_as_recorded() -> Result<()> {
    let mut counts = BTreeMap::new();
    for program in PROGRAMS {
        counts.insert(program, counted(program).context(program)?);
    }
    if env::var_os("MCR_RECORD").is_some() {
        let text = json!({"compiler": compiler()?, "instructions": counts});
        return Ok(fs::write(
            record(),
            serde_json::to_string_pretty(&text)? + "\n",
        )?);
    }
    let recorded: Value = serde_json::from_str(&fs::read_to_string(record())?)?;
    let mut wrong = Vec::new();
    for (program, counted) in &counts {
        let recorded = &recorded["instructions"][program];
        for (name, now) in counted {
            match recorded[name].as_u64() {
                None => wrong.push(format!("{program}: {name}: {now}, and nothing recorded")),
                Some(then) if now.abs_diff(then) > (then * MARGIN / 100).max(FEW) => {
                    wrong.push(format!("{program}: {name}: {now}, recorded are {then}"));
                }
                Some(_) => {}
            }
        }
        let names = recorded.as_object().into_iter().flatten();
        let gone = names.filter(|(name, _)| !counted.contains_key(*name));
        wrong
            .extend(gone.map(|(name, _)| format!("{program}: {name} is recorded, and no fixture")));
    }
    ensure!(
        wrong.is_empty(),
        "other instructions in the kernel than recorded with {}:\n{}\nif that is meant, record it \
         anew: MCR_RECORD=1 cargo xtask test --e2e frames_cost",
        recorded["compiler"],
        wrong.join("\n")
    );
    Ok(())
}

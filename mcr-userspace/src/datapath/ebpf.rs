//! The datapath in the kernel: the TC program of `mcr-ebpf`, and its maps.

mod clsact;
mod fan;
mod hook;
mod lease;
mod log;
mod maps;
mod object;
mod tenant;
mod xdp;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use aya::{
    EbpfError, EbpfLoader,
    maps::MapError,
    programs::{ProgramError, SchedClassifier, TcAttachType},
    util::KernelVersion,
};
use mcr_common::table::{Egress, LinkStats};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use self::{
    fan::Fans,
    hook::{Attacher, Attachment},
    lease::Keeper,
    log::Listener,
    maps::{Maps, WrongMap},
};
pub use self::{hook::Hook, object::BYTES as OBJECT};
use super::{Counters, Datapath, StepError};
use crate::{
    config::model::Limits,
    plan::{Change, Op, Table, diff, table::Fan},
};

/// The program that relays what arrives.
const ARRIVING: &str = "mcr_tc";
/// The program that relays what the host itself sends.
const LEAVING: &str = "mcr_tc_out";

/// The program and the maps, loaded.
pub struct Ebpf {
    object: aya::Ebpf,
    maps: Maps,
    /// The way to many links at once; or why there is none.
    fans: Result<Fans, String>,
    attachments: BTreeMap<u32, Attachments>,
    xdp: xdp::Attachments,
    /// Goes after what it has attached: until then its number is taken.
    attacher: Attacher,
    /// Where attachments outlive this process.
    _keeper: Option<Keeper>,
    /// Where the programs have something to say.
    _listener: Option<Listener>,
}

/// The programs at one link.
struct Attachments {
    /// Held until the link is let go.
    _arriving: Attachment,
    leaving: Option<Attachment>,
}

/// Why the program could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// This process may not.
    #[error(
        "this process may not load eBPF programs: run mcr as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, and under no seccomp profile that blocks bpf(2)"
    )]
    Permission,
    /// The kernel has no eBPF, or lacks something the program needs.
    #[error("this kernel can't run mcr's eBPF program (Linux 5.10 is the oldest that can): {0}")]
    Kernel(String),
    /// The kernel lacks the hook.
    #[error(
        "this kernel has no TCX hooks, which came with Linux 6.6: use `--tc-hook clsact`, or none"
    )]
    NoTcx,
    /// Something else is in the way.
    #[error(transparent)]
    Hook(#[from] StepError),
}

/// Fills the maps of an object that somebody else has loaded, with its programs, and attaches
/// nothing: for trying out what the programs decide.
///
/// # Errors
///
/// If the object is not ours, or an entry is refused.
pub fn fill(object: &mut aya::Ebpf, table: &Table) -> Result<(), LoadError> {
    let mut maps = Maps::take(object).map_err(|error| LoadError::Kernel(chain(&error)))?;
    for op in diff(&Table::default(), table) {
        maps.step(&op)?;
    }
    Ok(())
}

impl Ebpf {
    /// Loads the program, with maps for as much as `limits` allow. Nothing is attached yet.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn load(hook: Hook, limits: &Limits) -> Result<Self, LoadError> {
        // Where the version can't be read, attaching says what is wrong.
        if KernelVersion::current().is_ok_and(|version| !hook.is_in(version)) {
            return Err(LoadError::NoTcx);
        }
        // Below Linux 5.11 maps count against this limit; where it can't be raised, creating
        // them says so.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
        let mut loader = EbpfLoader::new();
        for (map, entries) in maps::sizes(limits) {
            loader.map_max_entries(map, entries);
        }
        log::prepare(&mut loader);
        let mut object = loader.load(OBJECT).map_err(|error| from_ebpf(&error))?;
        let wrong = |error: WrongMap| LoadError::Kernel(chain(&error));
        let maps = Maps::take(&mut object).map_err(wrong)?;
        let lease = maps::lease(&mut object).map_err(wrong)?;
        for name in [ARRIVING, LEAVING] {
            program(&mut object, name)
                .and_then(SchedClassifier::load)
                .map_err(|error| from_program(&error))?;
        }
        let fans = Fans::load(&mut object);
        let listener = Listener::start(&mut object)?;
        let keeper = hook.outlives_process().then(|| Keeper::start(lease));
        Ok(Self {
            object,
            attacher: Attacher::new(hook)?,
            maps,
            fans,
            attachments: BTreeMap::new(),
            xdp: xdp::Attachments::default(),
            _keeper: keeper.transpose()?,
            _listener: listener,
        })
    }

    /// Why frames can't be sent to many links at once, as a sentence without an end; empty where they
    /// can.
    #[must_use]
    pub fn no_fan(&self) -> String {
        self.fans.as_ref().err().cloned().unwrap_or_default()
    }

    fn fan(&mut self, change: &Change<u32, Fan>) -> Result<(), StepError> {
        let fans = self.fans.as_mut();
        let fans = fans.map_err(|why| StepError::Unsupported(why.clone()))?;
        match change.new {
            None => fans.remove(change.key),
            Some(fan) => fans.add(change.key, fan.links(), &mut self.object, &self.attacher),
        }
    }

    /// A change of an egress, with our link for one that stands for a whole set.
    fn placed(&self, change: &Change<u32, Egress>) -> Box<Change<u32, Egress>> {
        let ours = self.fans.as_ref().ok().and_then(Fans::ifindex);
        let place = |egress: Egress| match ours.filter(|_| egress.is_fan()) {
            Some(ifindex) => egress.at(ifindex),
            None => egress,
        };
        Box::new(Change {
            key: change.key,
            old: change.old.map(place),
            new: change.new.map(place),
        })
    }

    /// The ids of its programs. What can't be read is left out.
    #[must_use]
    pub fn programs(&self) -> BTreeSet<u32> {
        let programs = self.object.programs();
        let infos = programs.filter_map(|(_, program)| program.info().ok());
        infos.map(|info| info.id()).collect()
    }

    /// Loads the XDP programs beside, for links and relays that they are right for.
    ///
    /// # Errors
    ///
    /// [`LoadError`]; the TC program does all there is to do then.
    pub fn load_xdp(&mut self) -> Result<(), LoadError> {
        let editor = xdp::load(&mut self.object)?;
        self.maps.devices.edit_by(editor);
        Ok(())
    }

    /// Attaches to a link what is not attached yet, and takes away what is not wanted.
    fn attach(&mut self, ifindex: u32, host_frames: bool) -> Result<(), StepError> {
        if !self.attachments.contains_key(&ifindex) {
            let arriving = self.attach_program(ARRIVING, ifindex, TcAttachType::Ingress)?;
            let attachments = Attachments {
                _arriving: arriving,
                leaving: None,
            };
            self.attachments.insert(ifindex, attachments);
        }
        let attached = self.attachments.get(&ifindex);
        let leaving = match attached.map(|attached| attached.leaving.is_some()) {
            Some(there) if there == host_frames => return Ok(()),
            _ if host_frames => {
                Some(self.attach_program(LEAVING, ifindex, TcAttachType::Egress)?)
            }
            _ => None,
        };
        if let Some(attachments) = self.attachments.get_mut(&ifindex) {
            attachments.leaving = leaving;
        }
        Ok(())
    }

    fn attach_program(
        &mut self,
        name: &str,
        ifindex: u32,
        direction: TcAttachType,
    ) -> Result<Attachment, StepError> {
        let program = program(&mut self.object, name).map_err(|error| {
            StepError::system("find the program", std::io::Error::other(chain(&error)))
        })?;
        self.attacher.attach(program, ifindex, direction)
    }
}

/// The program of this name.
fn program<'a>(
    object: &'a mut aya::Ebpf,
    name: &str,
) -> Result<&'a mut SchedClassifier, ProgramError> {
    match object.program_mut(name) {
        Some(program) => program.try_into(),
        None => Err(ProgramError::UnexpectedProgramType),
    }
}

impl Datapath for Ebpf {
    fn name(&self) -> &'static str {
        self.attacher.hook().name()
    }

    fn prepare(&mut self, ops: &[Op]) {
        if let Ok(fans) = &mut self.fans {
            fans.prepare(ops);
        }
        self.maps.devices.prepare(ops);
    }

    fn step(&mut self, op: &Op) -> Result<(), StepError> {
        let change = match op {
            Op::Link(change) => change,
            Op::Fan(change) => return self.fan(change),
            Op::Egress(change) => return self.maps.step(&Op::Egress(self.placed(change))),
            Op::Xdp(change) => return self.xdp.step(&mut self.object, *change),
            _ => return self.maps.step(op),
        };
        let ifindex = change.key;
        let Some(link) = change.new else {
            self.attachments.remove(&ifindex);
            return self.maps.step(op);
        };
        self.maps.step(op)?;
        self.attach(ifindex, link.host_frames != 0)
            .inspect_err(|_| {
                if change.old.is_none() {
                    self.attachments.remove(&ifindex);
                }
                if let Err(error) = self.maps.step(&op.clone().inverse()) {
                    tracing::error!("{error}");
                }
            })
    }

    fn has_lost_fan(&self, touched: &BTreeSet<u32>) -> bool {
        self.fans.as_ref().is_ok_and(|fans| fans.is_lost(touched))
    }

    fn counters(&self, table: &Table) -> Result<Counters, StepError> {
        let mut counters = Counters {
            links: self.link_counters(table)?,
            ..Counters::default()
        };
        for id in table.slots.keys() {
            counters.slots.insert(*id, self.maps.slot_stats.sum(*id)?);
        }
        for id in table.egresses.keys() {
            let stats = self.maps.egress_stats.sum(*id)?;
            counters.egresses.insert(*id, stats);
        }
        self.maps.devices.count(&mut counters.egresses)?;
        for id in table.limits.keys() {
            counters.over.insert(*id, self.maps.bucket(*id)?.over);
        }
        Ok(counters)
    }

    fn link_counters(&self, table: &Table) -> Result<BTreeMap<u32, LinkStats>, StepError> {
        let links = table.links.iter();
        links
            .map(|(ifindex, link)| Ok((*ifindex, self.maps.link_stats.sum(link.stats)?)))
            .collect()
    }
}

fn from_ebpf(error: &EbpfError) -> LoadError {
    if may_not(error) {
        return LoadError::Permission;
    }
    LoadError::Kernel(chain(error))
}

fn from_program(error: &ProgramError) -> LoadError {
    // The verifier says "permission denied" as well, but has more to say.
    if let ProgramError::LoadError { verifier_log, .. } = error {
        let log = verifier_log.to_string();
        if let Some(objection) = objection(&log) {
            tracing::debug!("the verifier's log:\n{log}");
            // Without CAP_PERFMON it is stricter, and says so.
            if objection.ends_with("prohibited for !root") {
                return LoadError::Permission;
            }
            return LoadError::Kernel(format!(
                "its verifier says {objection:?} (RUST_LOG=debug shows the whole log)"
            ));
        }
    }
    if may_not(error) {
        return LoadError::Permission;
    }
    LoadError::Kernel(chain(error))
}

/// What the verifier objects to: the last line of its log, which can have tens of thousands,
/// but for the statistics (`print_verification_stats` in `kernel/bpf/verifier.c`).
fn objection(log: &str) -> Option<&str> {
    const STATISTICS: [&str; 3] = ["verification time ", "stack depth ", "processed "];
    let said = |line: &&str| {
        !line.trim().is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start))
    };
    log.lines().rev().find(said).map(str::trim)
}

fn may_not(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.kind() == io::ErrorKind::PermissionDenied
        {
            return true;
        }
        if let Some(MapError::CreateError { io_error, .. }) = error.downcast_ref()
            && io_error.kind() == io::ErrorKind::PermissionDenied
        {
            return true;
        }
        if let Some(ProgramError::LoadError { io_error, .. }) = error.downcast_ref()
            && io_error.kind() == io::ErrorKind::PermissionDenied
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// An error and its causes in one sentence.
fn chain(error: &dyn std::error::Error) -> String {
    let mut sentence = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        sentence.push_str(": ");
        sentence.push_str(&cause.to_string());
        next = cause.source();
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::objection;

    #[test]
    fn of_the_verifiers_log_the_reason_is_told() {
        let log = "894: (79) r1 = *(u64 *)(r10 -224)\n\
            invalid read from stack R10 off=-224 size=8\n\
            verification time 153376 usec\nstack depth 128+0+216\n\
            processed 1647 insns (limit 1000000) max_states_per_insn 5\n";
        assert_eq!(
            objection(log),
            Some("invalid read from stack R10 off=-224 size=8")
        );
        assert_eq!(objection("\n"), None);
        assert_eq!(objection("processed 0 insns\n"), None);
    }
}

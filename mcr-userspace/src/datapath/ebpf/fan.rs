//! The way to all links of an egress set at once: a link of ours, at which programs hand a frame on to
//! all of them.

mod tap;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use aya::{
    Ebpf,
    programs::{
        ProgramError, RawTracePoint, TcAttachType, Xdp, XdpMode,
        raw_trace_point::RawTracePointLink, xdp::XdpLink,
    },
    util::KernelVersion,
};

use self::tap::Tap;
use super::{
    chain,
    hook::{Attacher, Attachment},
    maps::{
        devmap::{LinkSets, Links},
        hash::Hash,
    },
    program,
};
use crate::{datapath::StepError, plan::Op};

/// The program that hands a frame on to all links of its set at once.
const ALL: &str = "mcr_fan";
/// The program that copies what the other one can't.
const SINGLE: &str = "mcr_fan_single";
/// The program that hears of frames that did not reach all links.
const FAILED: &str = "mcr_fan_failed";
/// What the kernel says then.
const FAILURE: &str = "xdp_redirect_err";
/// The first kernel that sends a frame to all links of a map (`BPF_F_BROADCAST`).
const OLDEST: KernelVersion = KernelVersion::new(5, 14, 0);

/// Sets, and the programs and the link by which frames go to all links of one.
pub(super) struct Fans {
    sets: LinkSets,
    /// Sets by the id of their map.
    ids: Hash<u32, u32>,
    /// The ids of the maps of those that are used, by set.
    used: BTreeMap<u32, u32>,
    /// There from the first set on, so that none has to wait for it again.
    link: Option<Link>,
}

/// The link of ours with its programs.
struct Link {
    tap: Tap,
    _all: XdpLink,
    _single: Attachment,
    _failed: RawTracePointLink,
}

impl Fans {
    /// Loads the programs.
    ///
    /// # Errors
    ///
    /// A sentence without an end that says why this kernel can't run them.
    pub(super) fn load(object: &mut Ebpf) -> Result<Self, String> {
        if KernelVersion::current().is_ok_and(|version| version < OLDEST) {
            return Err("this kernel is older than Linux 5.14".to_owned());
        }
        let missing = |error: &dyn std::error::Error| chain(error);
        let sets = LinkSets::take(object, "mcr_fans").map_err(|error| missing(&error))?;
        let ids = Hash::take(object, "mcr_fan_sets").map_err(|error| missing(&error))?;
        load(object).map_err(|error| {
            format!("this kernel does not take the programs: {}", chain(&error))
        })?;
        Ok(Self {
            sets,
            ids,
            used: BTreeMap::new(),
            link: None,
        })
    }

    /// Makes the links ahead of sets that changes add, and forgets those made before.
    pub(super) fn prepare(&mut self, ops: &[Op]) {
        let new = ops.iter().filter_map(|op| match op {
            Op::Fan(change) if change.old.is_none() => {
                Some(links(change.key, change.new.as_ref()?.links()))
            }
            _ => None,
        });
        self.sets.prepare(new.collect());
    }

    /// Makes these the links of a set.
    pub(super) fn add(
        &mut self,
        set: u32,
        members: &[u32],
        object: &mut Ebpf,
        attacher: &Attacher,
    ) -> Result<(), StepError> {
        if self.link.is_none() {
            self.link = Some(Link::make(object, attacher)?);
        }
        let id = self.sets.set(&links(set, members))?;
        self.ids.set(&id, Some(set))?;
        self.used.insert(set, id);
        Ok(())
    }

    /// Forgets a set that nothing leads to any more.
    pub(super) fn remove(&mut self, set: u32) -> Result<(), StepError> {
        match self.used.remove(&set) {
            Some(id) => self.ids.set(&id, None),
            None => Ok(()),
        }
    }

    /// Interface index of our link.
    pub(super) fn ifindex(&self) -> Option<u32> {
        self.link.as_ref().map(|link| link.tap.ifindex())
    }

    /// Whether it is one of these, and not what it was.
    pub(super) fn is_lost(&self, touched: &BTreeSet<u32>) -> bool {
        let link = self.link.as_ref();
        link.is_some_and(|link| touched.contains(&link.tap.ifindex()) && !link.tap.is_up())
    }
}

fn links(id: u32, links: &[u32]) -> Links {
    Links {
        id,
        members: links.to_vec(),
        edited: false,
    }
}

impl Link {
    fn make(object: &mut Ebpf, attacher: &Attacher) -> Result<Self, StepError> {
        let tap = Tap::make()?;
        let ifindex = tap.ifindex();
        let failed = |error: &ProgramError| {
            let cause = io::Error::other(chain(error));
            StepError::system(format!("can't attach to {}", tap.name()), cause)
        };
        let single = program(object, SINGLE).map_err(|error| failed(&error))?;
        let single = attacher.attach(single, ifindex, TcAttachType::Ingress)?;
        let all = at_all(object, ifindex).map_err(|error| failed(&error))?;
        let errors = at_failures(object).map_err(|error| failed(&error))?;
        Ok(Self {
            tap,
            _all: all,
            _single: single,
            _failed: errors,
        })
    }
}

fn load(object: &mut Ebpf) -> Result<(), ProgramError> {
    xdp(object)?.load()?;
    program(object, SINGLE)?.load()?;
    raw_tracepoint(object)?.load()
}

fn at_all(object: &mut Ebpf, ifindex: u32) -> Result<XdpLink, ProgramError> {
    let program = xdp(object)?;
    let id = program.attach_to_if_index(ifindex, XdpMode::Skb)?;
    program.take_link(id)
}

fn at_failures(object: &mut Ebpf) -> Result<RawTracePointLink, ProgramError> {
    let program = raw_tracepoint(object)?;
    let id = program.attach(FAILURE)?;
    program.take_link(id)
}

fn xdp(object: &mut Ebpf) -> Result<&mut Xdp, ProgramError> {
    match object.program_mut(ALL) {
        Some(program) => program.try_into(),
        None => Err(ProgramError::UnexpectedProgramType),
    }
}

fn raw_tracepoint(object: &mut Ebpf) -> Result<&mut RawTracePoint, ProgramError> {
    match object.program_mut(FAILED) {
        Some(program) => program.try_into(),
        None => Err(ProgramError::UnexpectedProgramType),
    }
}

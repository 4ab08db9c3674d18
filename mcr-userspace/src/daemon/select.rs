//! Which datapath makes the copies.

use std::collections::BTreeSet;

use super::Settings;
use crate::{
    config::{
        model::{DatapathChoice, Local, Relay},
        xdp,
    },
    datapath::{
        Datapath, StepError,
        ebpf::{Ebpf, Hook, LoadError},
        ring::Ring,
    },
    plan::Means,
};

/// A datapath, and what the plan has to know of it.
pub struct Selected {
    /// Makes the copies.
    pub back_end: Box<dyn Datapath>,
    /// Whether its attachments outlive this process.
    pub leased: bool,
    /// What it can do.
    pub means: Means,
    /// Why it can't send a frame to many links at once, as a sentence without an end; empty where it can.
    pub no_fan: String,
    /// Ids of its programs in the kernel.
    pub own_programs: BTreeSet<u32>,
    /// Why programs in the kernel can't make the copies; empty where they can, or where nobody wants
    /// them.
    pub no_programs: String,
    /// Why the XDP program can't; empty where it can, or where nobody wants it.
    pub no_xdp: String,
}

/// Why there is no datapath.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// Not the TC program.
    #[error(transparent)]
    Ebpf(#[from] LoadError),
    /// Not the XDP program.
    #[error("`datapath: xdp` is demanded, and can't be had: {0}")]
    Xdp(String),
    /// Not packet sockets.
    #[error("{0}: run mcr as root, or with CAP_NET_RAW")]
    Ring(StepError),
    /// Neither the TC program nor packet sockets.
    #[error(
        "{programs}; nor can packet sockets make the copies, which take CAP_NET_RAW alone: {sockets}"
    )]
    Neither {
        /// Why not the one.
        programs: LoadError,
        /// Why not the others.
        sockets: StepError,
    },
    /// A relay wants what packet sockets can't do.
    #[error(
        "relay {0}: `local: drop` needs the datapath tc or xdp: a packet socket gets a copy of a frame and can't keep it from the host"
    )]
    LocalDrop(String),
    /// A relay wants what XDP can't do.
    #[error("relay {0}: {1}")]
    NotByXdp(String, &'static str),
}

/// Gets the datapath that was asked for, or the best one there is.
///
/// # Errors
///
/// [`SelectError`]: what was asked for can't be had, or nothing can.
pub fn select(settings: &Settings) -> Result<Selected, SelectError> {
    let demanded = settings.datapath;
    if demanded == DatapathChoice::Xdp {
        settings.relays.iter().try_for_each(by_xdp)?;
    }
    match demanded {
        DatapathChoice::Tc => Ok(tc(settings)?),
        DatapathChoice::Xdp => match tc(settings)? {
            selected if selected.means.xdp => Ok(selected),
            selected => Err(SelectError::Xdp(selected.no_xdp)),
        },
        DatapathChoice::AfPacket => match wants_drop(&settings.relays) {
            Some(relay) => Err(SelectError::LocalDrop(relay.name.clone())),
            None => ring(settings, String::new()).map_err(SelectError::Ring),
        },
        DatapathChoice::Auto => match tc(settings) {
            Ok(selected) => Ok(selected),
            // What was asked for by name is not replaced by something else.
            Err(why @ LoadError::NoTcx) => Err(why.into()),
            Err(why) if wants_drop(&settings.relays).is_some() => Err(why.into()),
            Err(why) => match ring(settings, why.to_string()) {
                Ok(selected) => {
                    tracing::warn!(
                        "packet sockets make the copies, at about five times the cost: {why}"
                    );
                    Ok(selected)
                }
                Err(sockets) => Err(SelectError::Neither {
                    programs: why,
                    sockets,
                }),
            },
        },
    }
}

/// The first relay that keeps frames from the host.
fn wants_drop(relays: &[Relay]) -> Option<&Relay> {
    relays.iter().find(|relay| relay.local == Local::Drop)
}

/// Whether XDP can serve a relay, as far as can be said without knowing its links.
fn by_xdp(relay: &Relay) -> Result<(), SelectError> {
    match xdp::objection(relay) {
        None => Ok(()),
        Some(why) => Err(SelectError::NotByXdp(relay.name.clone(), why)),
    }
}

fn tc(settings: &Settings) -> Result<Selected, LoadError> {
    let hook = settings.hook.unwrap_or_else(Hook::of_this_kernel);
    let mut back_end = Ebpf::load(hook, &settings.limits)?;
    let no_xdp = load_xdp(settings, &mut back_end);
    Ok(Selected {
        no_fan: back_end.no_fan(),
        own_programs: back_end.programs(),
        back_end: Box::new(back_end),
        leased: hook.outlives_process(),
        means: Means {
            programs: true,
            xdp: no_xdp.is_none(),
            demanded: settings.datapath,
        },
        no_programs: String::new(),
        no_xdp: no_xdp.unwrap_or_default(),
    })
}

/// Loads the XDP programs beside, unless nobody wants them, and says why there are none. Without them
/// the TC program does all there is to do.
fn load_xdp(settings: &Settings, back_end: &mut Ebpf) -> Option<String> {
    if settings.datapath == DatapathChoice::Tc {
        return Some(String::new());
    }
    back_end.load_xdp().err().map(|error| error.to_string())
}

/// Packet sockets, with why there are no programs in the kernel.
fn ring(settings: &Settings, no_programs: String) -> Result<Selected, StepError> {
    Ok(Selected {
        back_end: Box::new(Ring::new()?),
        own_programs: BTreeSet::new(),
        leased: false,
        no_fan: String::new(),
        means: Means {
            demanded: settings.datapath,
            ..Means::default()
        },
        no_programs,
        no_xdp: String::new(),
    })
}

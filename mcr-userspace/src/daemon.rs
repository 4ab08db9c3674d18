//! What runs while frames are relayed: one task that waits for something to change.
//!
//! ```text
//! rule file, SIGHUP ──┐
//!                     ├─► World ─► plan ─► diff ─► Datapath::apply ─► maps, sockets
//! netlink ────────────┘              ├──► joins ◄──► queriers
//!                                    └──► neighbours ─► netlink
//! control socket ◄──► reload, snapshots
//! clock ─► a look for storms and for programs of others, statistics
//! SIGINT, SIGTERM ─► end
//! ```

mod control;
mod controller;
mod identity;
mod ledger;
mod netns;
mod printer;
mod reload;
mod select;
mod storms;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Interval, MissedTickBehavior, interval},
};

pub use self::{
    controller::{Controller, SettleError},
    identity::relay_mac,
    ledger::{Counted, Ingress, Label, Relayed, Report},
    select::{SelectError, select},
};
use self::{printer::Printer, reload::reload};
use crate::{
    config::model::{DatapathChoice, Limits, Relay},
    control::{Instance, listener::ListenError},
    datapath::ebpf::Hook,
    links::{Links, LinksError, neighbours::Neighbours},
    plan::World,
};

/// What to relay and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The relays.
    pub relays: Vec<Relay>,
    /// The rule file they come from, read again on SIGHUP.
    pub file: Option<PathBuf>,
    /// The datapath the rule file names, if nothing else decides about it.
    pub datapath_of_file: Option<DatapathChoice>,
    /// Who makes the copies.
    pub datapath: DatapathChoice,
    /// How much the tables hold.
    pub limits: Limits,
    /// The TC hook to use; `None`: the better one the kernel has.
    pub hook: Option<Hook>,
    /// The name of this instance among those on this host.
    pub instance: Instance,
    /// Whether somebody has chosen that name.
    pub named: bool,
    /// Where its control socket is to be; `None`: where [`Instance::socket`] says.
    pub socket: Option<PathBuf>,
    /// Where the rule file wants it, whatever else decides about it.
    pub socket_of_file: Option<PathBuf>,
    /// How often counters are written to standard output.
    pub statistics: Option<Duration>,
}

/// Why relaying could not begin, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// No datapath.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// No netlink.
    #[error(transparent)]
    Links(#[from] LinksError),
    /// No control socket.
    #[error(transparent)]
    Control(#[from] ListenError),
    /// The relays can't be put in force.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// What is demanded of the datapath can't be had for a relay.
    #[error("{0}")]
    Denied(String),
    /// The operating system said no to something else.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// Relays until SIGINT or SIGTERM.
///
/// # Errors
///
/// [`DaemonError`], if relaying can't begin, or can't go on.
pub async fn run(settings: Settings) -> Result<(), DaemonError> {
    let mut ends = [SignalKind::interrupt(), SignalKind::terminate()]
        .map(signal)
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let mut hangup = signal(SignalKind::hangup())?;

    allow_many_descriptors();
    let datapath = select(&settings)?;
    // Before anything is attached: another instance of this name may be relaying.
    let mut questions = control::open(&settings)?;
    let mut links = Links::open(datapath.means.programs).await?;
    let mut neighbours = Neighbours::default();
    let mut world = World {
        relays: settings.relays.clone(),
        relay_mac: relay_mac(settings.instance.as_str()),
        limits: settings.limits,
        leased: datapath.leased,
        means: datapath.means,
        no_fan: datapath.no_fan,
        no_programs: datapath.no_programs,
        no_xdp: datapath.no_xdp,
        own_programs: datapath.own_programs,
        ..World::default()
    };
    for (index, link) in links.map().iter() {
        world.links.insert(*index, world.without_own(link));
    }
    let mut controller = Controller::new(world, datapath.back_end);
    controller.settle()?;
    if let Some(sentence) = controller.denied() {
        return Err(DaemonError::Denied(sentence));
    }
    // What the kernel knows of stations by now belongs to being ready.
    neighbours.follow(controller.neighbours()).await;
    controller.set_neighbours(neighbours.note().await);
    controller.announce_ready();

    let mut look = ticks(storms::LOOK);
    let mut statistics = settings.statistics.map(ticks);
    let printer = Printer::start()?;
    loop {
        neighbours.follow(controller.neighbours()).await;
        tokio::select! {
            () = any(&mut ends) => break,
            _ = hangup.recv() => {
                // What comes of it is logged.
                let _ = reload(&settings, &mut controller);
            }
            Some(first) = questions.next() => {
                questions.answer(first, &settings, &mut controller);
            }
            () = links.changed() => {
                let touched = links.note().await;
                controller.set_links(links.map(), &touched);
                neighbours.hasten();
            }
            () = neighbours.changed() => controller.set_neighbours(neighbours.note().await),
            _ = look.tick() => {
                controller.look_for_storms();
                let touched = links.look(&controller.egresses());
                controller.set_links(links.map(), &touched);
            }
            () = until(controller.due()) => controller.try_again(),
            () = controller.joins_due() => controller.advance_joins(),
            () = tick(statistics.as_mut()) => match controller.report() {
                Ok(report) => printer.print(&report),
                Err(error) => tracing::warn!("the counters can't be read: {error}"),
            },
        }
    }
    neighbours.follow(&BTreeSet::new()).await;
    match controller.report() {
        Ok(report) => {
            controller.say_goodbye(&report);
            if settings.statistics.is_some() {
                printer.finish(&report).await;
            }
        }
        Err(error) => tracing::warn!("the counters can't be read: {error}"),
    }
    Ok(())
}

fn ticks(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}

/// Waits for the next tick, for ever if there is no clock.
async fn tick(interval: Option<&mut Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// Waits for this point of time, for ever if there is none.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Waits for the first of these signals.
async fn any(signals: &mut [Signal]) {
    let all = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
    futures::future::select_all(all).await;
}

/// Lifts the number of open files to what the administrator allows. Each link takes a descriptor
/// or more, so that the usual 1024 end at some hundred links; they are meant for programs that use
/// `select(2)`, which this one does not.
fn allow_many_descriptors() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // What does not fit is reported where it does not.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

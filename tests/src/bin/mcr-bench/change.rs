//! How long it takes until relays are in force, and until a change of one among many is.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result};
use mcr::{
    config::parse_bytes,
    daemon::Controller,
    datapath::{
        Datapath as _,
        ebpf::{Ebpf, Hook},
    },
    links::Links,
    plan::{Table, World, diff, plan},
};
use mcr_tests::Netns;
use nix::time::{ClockId, clock_gettime};

use crate::{Runs, numbers::Spread};

/// Ingress links; each has its part of the relays.
const LINKS: usize = 10;
/// Relays of single groups, and as many of a range.
const RELAYS: usize = 1000;

/// What is measured.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// Single groups of which one is changed
    #[arg(long, default_value_t = 100_000)]
    groups: usize,
    #[command(flatten)]
    runs: Runs,
}

impl Options {
    /// Of so many groups.
    pub(crate) fn of(groups: usize, runs: Runs) -> Self {
        Self { groups, runs }
    }
}

/// Milliseconds of CPU, by the controller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// Until all routes are in force.
    pub(crate) all: Spread,
    /// Until a change of one is.
    pub(crate) one: Spread,
}

/// Prints how long each part takes, and gives the whole.
pub(crate) fn run(args: &Options) -> Result<Times> {
    let netns = Netns::new("bench")?;
    let names = (0..LINKS).map(|number| format!("in{number}"));
    for name in names.chain(["out0".to_owned(), "out1".to_owned()]) {
        netns.ip(&format!("link add {name} type veth peer name peer-{name}"))?;
        netns.ip(&format!("link set {name} up"))?;
    }
    println!(
        "{} single groups in {RELAYS} relays and {RELAYS} ranges, on {LINKS} ingress links",
        args.groups
    );
    println!(
        "milliseconds of CPU: plan, diff, apply (ops); by the controller, with counters and joins"
    );
    netns.run(|| measure(args))
}

fn measure(args: &Options) -> Result<Times> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let links = runtime.block_on(Links::open(true))?;
    let world = |text: &str| -> Result<World> {
        let mut clock = Clock::start()?;
        let rules = parse_bytes(text.as_bytes());
        let rules = rules.ok().context("the rules are wrong")?.rules;
        println!(
            "{:>9.2}  reading {} bytes of rules",
            clock.lap()?,
            text.len()
        );
        Ok(World {
            relays: rules.relays,
            limits: rules.limits,
            links: links.map().clone(),
            ..World::default()
        })
    };
    let before = world(&rules(args.groups, false))?;
    let after = world(&rules(args.groups, true))?;
    let (mut all, mut one) = (Vec::new(), Vec::new());
    for _ in 0..args.runs.runs {
        let _entered = runtime.enter();
        parts(&before, &after)?;
        let [first, second] = whole(&before, &after)?;
        all.push(first);
        one.push(second);
    }
    Ok(Times {
        all: Spread::of(all),
        one: Spread::of(one),
    })
}

/// What the planner, the difference and the datapath take.
fn parts(before: &World, after: &World) -> Result<()> {
    let mut datapath = Ebpf::load(Hook::of_this_kernel(), &before.limits)?;
    let mut table = Table::default();
    for (what, world) in [("all", before), ("one relay", after), ("nothing", after)] {
        let mut clock = Clock::start()?;
        let next = plan(world, &table)?.table;
        let planned = clock.lap()?;
        let ops = diff(&table, &next);
        let compared = clock.lap()?;
        datapath.apply(&ops)?;
        let applied = clock.lap()?;
        println!(
            "{:>9.2}  {:>8.2}  {:>8.2} ({})  {what}",
            planned,
            compared,
            applied,
            ops.len()
        );
        table = next;
    }
    Ok(())
}

/// What all relays take, and a change of one, as a whole.
fn whole(before: &World, after: &World) -> Result<[f64; 2]> {
    let datapath = Ebpf::load(Hook::of_this_kernel(), &before.limits)?;
    let mut controller = Controller::new(before.clone(), Box::new(datapath));
    let mut clock = Clock::start()?;
    controller.settle()?;
    let all = clock.lap()?;
    println!("{all:>9.2}  all, by the controller");
    let relays = after.relays.clone();
    let mut clock = Clock::start()?;
    controller.set_relays(relays)?;
    let one = clock.lap()?;
    println!("{one:>9.2}  one relay, by the controller");
    Ok([all, one])
}

/// Measures the time this thread has a CPU, in the kernel included: what others on the machine take
/// does not count.
struct Clock(Duration);

impl Clock {
    fn start() -> Result<Self> {
        Ok(Self(
            clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into(),
        ))
    }

    /// Milliseconds since the start or the last call.
    fn lap(&mut self) -> Result<f64> {
        let before = std::mem::replace(self, Self::start()?).0;
        Ok(self.0.saturating_sub(before).as_secs_f64() * 1000.0)
    }
}

/// A rule file of so many single groups and of ranges; in the other one a relay has another group.
fn rules(routes: usize, other: bool) -> String {
    let mut text = "version: 1\nlimits: {routes: 2000000}\nrelays:\n".to_owned();
    let each = routes / RELAYS;
    for relay in 0..RELAYS {
        let link = relay % LINKS;
        let groups = (0..each).map(|number| {
            let changed = other && relay == 0 && number == 0;
            let number = if changed {
                0xff_ffff
            } else {
                relay * each + number
            };
            format!(
                "239.{}.{}.{}",
                number >> 16 & 0xff,
                number >> 8 & 0xff,
                number & 0xff
            )
        });
        let groups: Vec<_> = groups.collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  - {{name: r{relay}, from: in{link}, to: out0, join: false, groups: [{}]}}",
            groups.join(", ")
        );
        let _ = writeln!(
            text,
            "  - {{name: p{relay}, from: in{link}, to: out1, join: false, groups: 232.{}.{}.0/24}}",
            relay >> 8,
            relay & 0xff
        );
    }
    text
}

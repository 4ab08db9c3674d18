//! What is to be reached, and beside what it is measured.

use crate::{
    bed::{Egress, Scene, Sink},
    cost::{Entry, Outcome},
    generator::Generator,
    latency,
    variant::{Datapath, Edits, Subject, Variant},
    verdict::Verdict,
};

/// Routes of `mcr`, unless a goal is about them.
const ROUTES: usize = 10_000;

/// A rule file has a million values at most.
const MANY: usize = 999_000;

/// What the cost of a frame must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    /// So much of the yardstick's rate at least.
    Rate(f64),
    /// So much of the yardstick's cost at most.
    Cost(f64),
    /// Less than the yardstick's cost.
    Faster,
}

/// A goal: an entry, beside another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) name: &'static str,
    pub(crate) entry: Entry,
    pub(crate) yardstick: Entry,
    pub(crate) limit: Limit,
}

/// Goals whose entries are measured in turn, with others of interest.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) goals: Vec<Goal>,
    others: Vec<Entry>,
}

impl Group {
    /// All that is to be measured, each once, what others are compared with first.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let yardsticks = self.goals.iter().map(|goal| goal.yardstick);
        let subjects = self.goals.iter().map(|goal| goal.entry);
        let mut entries = Vec::new();
        for entry in self
            .others
            .iter()
            .copied()
            .chain(yardsticks)
            .chain(subjects)
        {
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
        entries
    }
}

impl Goal {
    /// Looks at what was measured.
    pub(crate) fn verdict(&self, outcome: &Outcome, group: &str) -> Verdict {
        let ratio = outcome.ratio(self.entry, self.yardstick);
        let what = format!("{} of {}", self.entry.variant, self.yardstick.variant);
        let beyond = outcome.beyond(self.entry, self.yardstick);
        let beyond = |value: fn(f64) -> f64| match &beyond {
            Ok(beyond) => format!(" ({:.2} beyond the generator)", value(beyond.median)),
            Err(_) => String::new(),
        };
        let (what, reached) = match (ratio, self.limit) {
            (Err(reason), _) => (format!("{what}: {reason}"), None),
            (Ok(cost), Limit::Rate(limit)) => {
                let rate = cost.inverse();
                let beyond = beyond(f64::recip);
                let what = format!("rate {rate}, {what}{beyond}; at least {limit}");
                (what, Some(rate.median >= limit))
            }
            (Ok(cost), Limit::Cost(limit)) => (
                format!(
                    "cost {cost}, {what}{}; at most {limit}",
                    beyond(|value| value)
                ),
                Some(cost.median <= limit),
            ),
            (Ok(cost), Limit::Faster) => (
                format!("cost {cost}, {what}{}; below 1", beyond(|value| value)),
                Some(cost.median < 1.0),
            ),
        };
        Verdict {
            name: format!("{group}: {}", self.name),
            what,
            reached,
        }
    }
}

/// Who makes copies for containers, `mcr` and its yardstick.
pub(crate) const CONTAINERS: [Variant; 2] = [MIRRED, subject(Datapath::Auto, true, Edits::None)];

/// Frames for containers, and so many of them a second.
pub(crate) const CONTAINER_COPIES: u8 = 20;
pub(crate) const CONTAINER_RATE: u32 = 100_000;

/// Whether that is what [`containers_verdict`] is about.
pub(crate) fn is_containers(options: &latency::Options) -> bool {
    options.variants() == CONTAINERS
        && options.fan_out() == CONTAINER_COPIES
        && options.rate() == CONTAINER_RATE
}

const MIRRED: Variant = Variant::Mirred {
    keep: true,
    edits: Edits::None,
};

const fn mirred(keep: bool, edits: Edits) -> Variant {
    Variant::Mirred { keep, edits }
}

const fn bare(keep: bool, edits: Edits) -> Variant {
    Variant::Bare { keep, edits }
}

const fn subject(datapath: Datapath, keep: bool, edits: Edits) -> Variant {
    Variant::Mcr(Subject {
        datapath,
        keep,
        edits,
        join: false,
    })
}

const fn scene(egress: Egress, fan_out: u8) -> Scene {
    Scene {
        egress,
        fan_out,
        size: 100,
        routes: ROUTES,
        streams: 1,
        generator: Generator::Live,
        sink: Sink::Tc,
        timed: 0,
    }
}

fn goals(scene: Scene, goals: &[(&'static str, Variant, Variant, Limit)]) -> Vec<Goal> {
    let entry = |variant| Entry { scene, variant };
    let goals = goals.iter();
    let goals = goals.map(|(name, subject, yardstick, limit)| Goal {
        name,
        entry: entry(*subject),
        yardstick: entry(*yardstick),
        limit: *limit,
    });
    goals.collect()
}

/// All goals about the cost of a frame.
pub(crate) fn all() -> Vec<Group> {
    let mut groups = vec![one_copy()];
    groups.extend([
        fan_out("veth-8", Egress::Veth, 8, Generator::Live),
        fan_out("veth-32", Egress::Veth, 32, Generator::Live),
        fan_out("bridge-8", Egress::Bridge, 8, Generator::Live),
        fan_out("bridge-32", Egress::Bridge, 32, Generator::Live),
        fan_out("mixed-8", Egress::Mixed, 8, Generator::Live),
        fan_out("udp-8", Egress::Veth, 8, Generator::Udp),
    ]);
    groups.extend([xdp("xdp-1", 1), xdp("xdp-8", 8)]);
    groups.extend([routes(), streams()]);
    groups
}

fn one_copy() -> Group {
    use Edits::{None, Ttl};
    let scene = scene(Egress::Veth, 1);
    let tc = |keep, edits| subject(Datapath::Tc, keep, edits);
    Group {
        name: "tc-1",
        goals: goals(
            scene,
            &[
                (
                    "TC 1 → 1, default rule",
                    tc(true, None),
                    bare(true, None),
                    Limit::Rate(0.95),
                ),
                (
                    "TC 1 → 1, local: drop",
                    tc(false, None),
                    bare(false, None),
                    Limit::Rate(0.95),
                ),
                (
                    "TC 1 → 1, another TTL",
                    tc(true, Ttl),
                    bare(true, Ttl),
                    Limit::Rate(0.95),
                ),
                (
                    "TC 1 → 1, default rule",
                    tc(true, None),
                    Variant::Smcroute,
                    Limit::Rate(3.0),
                ),
                (
                    "TC 1 → 1, local: drop",
                    tc(false, None),
                    Variant::Smcroute,
                    Limit::Rate(3.0),
                ),
            ],
        ),
        others: [Variant::Nothing, Variant::Drop, MIRRED, Variant::Nft]
            .map(|variant| Entry { scene, variant })
            .to_vec(),
    }
}

fn fan_out(name: &'static str, egress: Egress, copies: u8, generator: Generator) -> Group {
    use Edits::{None, Ttl};
    let scene = Scene {
        generator,
        ..scene(egress, copies)
    };
    let auto = |keep, edits| subject(Datapath::Auto, keep, edits);
    let tc = subject(Datapath::Tc, true, None);
    let others = [
        Variant::Nothing,
        Variant::Drop,
        bare(true, None),
        Variant::Nft,
        tc,
    ];
    Group {
        name,
        goals: goals(
            scene,
            &[
                (
                    "fan-out, default rule",
                    auto(true, None),
                    MIRRED,
                    Limit::Faster,
                ),
                (
                    "fan-out, local: drop",
                    auto(false, None),
                    mirred(false, None),
                    Limit::Faster,
                ),
                (
                    "fan-out, edits per copy",
                    auto(true, Ttl),
                    mirred(true, Ttl),
                    Limit::Faster,
                ),
                (
                    "fan-out, edits per copy, beside none",
                    auto(true, Ttl),
                    MIRRED,
                    Limit::Faster,
                ),
            ],
        ),
        others: others.map(|variant| Entry { scene, variant }).to_vec(),
    }
}

fn xdp(name: &'static str, copies: u8) -> Group {
    let bare = |edits| Variant::BareXdp {
        edits,
        generic: false,
    };
    let scene = Scene {
        sink: Sink::Xdp,
        ..scene(Egress::Veth, copies)
    };
    let xdp = subject(Datapath::Xdp, false, Edits::None);
    let others = [Variant::Drop, MIRRED, bare(Edits::None)];
    Group {
        name,
        goals: goals(
            scene,
            &[
                (
                    "XDP, beside a bare program",
                    xdp,
                    bare(Edits::Mac),
                    Limit::Rate(0.9),
                ),
                (
                    "XDP, beside smcroute",
                    xdp,
                    Variant::Smcroute,
                    Limit::Rate(6.0),
                ),
            ],
        ),
        others: others.map(|variant| Entry { scene, variant }).to_vec(),
    }
}

fn routes() -> Group {
    let variant = subject(Datapath::Tc, true, Edits::None);
    let entry = |routes| Entry {
        scene: Scene {
            routes,
            ..scene(Egress::Veth, 1)
        },
        variant,
    };
    Group {
        name: "routes",
        goals: vec![Goal {
            name: "one stream among 999 000 routes, beside 1",
            entry: entry(MANY),
            yardstick: entry(1),
            limit: Limit::Cost(1.1),
        }],
        others: vec![entry(1), entry(ROUTES)],
    }
}

fn streams() -> Group {
    let variant = subject(Datapath::Tc, true, Edits::None);
    let entry = |streams| Entry {
        scene: Scene {
            streams,
            generator: Generator::Packet,
            ..scene(Egress::Veth, 1)
        },
        variant,
    };
    Group {
        name: "streams",
        goals: vec![Goal {
            name: "streams spread over 10 000 routes, beside one",
            entry: entry(ROUTES),
            yardstick: entry(1),
            limit: Limit::Cost(1.25),
        }],
        others: Vec::new(),
    }
}

//! Starts and ends who makes copies.

use std::{env, fmt::Write as _, fs, io::Write as _, path::PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use mcr_tests::{Mcr, Process, rules};
use nix::sys::signal::Signal;
use tempfile::NamedTempFile;

use crate::{
    LONG,
    bed::{Bed, tool},
    bpf::{
        Attached, Hook, Kind, Map, MapKind,
        asm::Code,
        copier::{self, Different, Target},
    },
    generator::{TTL, group},
    sys,
    variant::{Edits, Subject, Variant},
};

/// The MAC addresses of copies: those of the group, and one as mcr has.
const MACS: [u8; 12] = [0x01, 0, 0x5e, 1, 1, 1, 0x02, 0x6d, 0x63, 0x72, 0, 1];
/// The time to live of the first copy, where copies differ.
const FIRST_TTL: u8 = 32;

/// Something that makes copies until it is dropped.
pub(crate) enum Running {
    /// Made by the kernel, as long as the namespace is.
    Kernel,
    /// Programs, with the map that they use.
    Programs {
        _attached: Vec<Attached>,
        _map: Option<Map>,
    },
    /// A daemon, with its configuration.
    Daemon {
        process: Process,
        _file: Option<NamedTempFile>,
    },
    Mcr(Box<Mcr>),
}

/// Starts one on a bed of its own.
pub(crate) fn start(bed: &Bed, variant: Variant) -> Result<Running> {
    match variant {
        Variant::Nothing => Ok(Running::Kernel),
        Variant::Drop => program(bed, &copier::tc_drop()),
        Variant::Mirred { keep, edits } => mirred(bed, keep, edits),
        Variant::Nft => nft(bed),
        Variant::Smcroute => smcroute(bed),
        Variant::Plain => plain(bed),
        Variant::Bare { keep, edits } => bare(bed, keep, edits),
        Variant::BareXdp { edits, generic } => bare_xdp(bed, edits, generic),
        Variant::Mcr(subject) => mcr(bed, subject),
    }
}

impl Running {
    /// Its process, if there is one.
    fn id(&self) -> Option<u32> {
        match self {
            Self::Kernel | Self::Programs { .. } => None,
            Self::Daemon { process, .. } => Some(process.id()),
            Self::Mcr(mcr) => Some(mcr.id()),
        }
    }

    fn tasks(&self) -> Result<Vec<PathBuf>> {
        let Some(id) = self.id() else {
            return Ok(Vec::new());
        };
        let tasks = fs::read_dir(format!("/proc/{id}/task"))?;
        tasks.map(|task| Ok(task?.path())).collect()
    }

    /// Lets all its threads run on this CPU alone, and before others there.
    pub(crate) fn own(&self, cpu: usize) -> Result<()> {
        for task in self.tasks()? {
            let id = task
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .parse()?;
            sys::pin(id, cpu)?;
            sys::hurry(id)?;
        }
        Ok(())
    }

    /// The time its threads have had a CPU, in nanoseconds.
    pub(crate) fn cpu_time(&self) -> Result<u64> {
        let mut sum = 0;
        for task in self.tasks()? {
            let path = task.join("schedstat");
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let time = text
                .split_whitespace()
                .next()
                .context("an empty schedstat")?;
            sum += time.parse::<u64>()?;
        }
        Ok(sum)
    }

    /// Ends it. What `mcr` has counted must add up: every frame that it saw was relayed or has a reason,
    /// every copy was sent or has one. It must have seen what was sent, if that is known, and
    /// made what has arrived.
    pub(crate) fn stop(self, sent: Option<u64>, arrived: u64) -> Result<()> {
        match self {
            Self::Kernel | Self::Programs { .. } => Ok(()),
            Self::Daemon { mut process, .. } => {
                process.signal(Signal::SIGTERM)?;
                process.wait(LONG).map(drop)
            }
            Self::Mcr(mcr) => {
                let stats = mcr.finish()?;
                let (seen, sent) = (stats.interest(Bed::INGRESS), sent.unwrap_or_default());
                let expected = stats.expected(Bed::INGRESS);
                ensure!(
                    seen >= sent && expected >= arrived,
                    "{sent} frames were sent and {arrived} copies arrived, but mcr says that it has \
                     seen {seen} and should have made {expected}"
                );
                Ok(())
            }
        }
    }
}

fn program(bed: &Bed, code: &Code) -> Result<Running> {
    let attached = bed.attach(Bed::INGRESS, Kind::Tc, code, Hook::Ingress)?;
    Ok(Running::Programs {
        _attached: vec![attached],
        _map: None,
    })
}

/// Copies that differ are edited where they leave.
fn mirred(bed: &Bed, keep: bool, edits: Edits) -> Result<Running> {
    let last = bed.egresses.len().saturating_sub(1);
    let mut actions = String::new();
    let mut attached = Vec::new();
    for (place, (link, (_, different))) in bed.egresses.iter().zip(targets(bed, edits)?).enumerate()
    {
        let how = if place == last && !keep {
            "redirect"
        } else {
            "mirror"
        };
        // Writing to a string cannot fail.
        let _ = write!(actions, " action mirred egress {how} dev {link}");
        if let Some(different) = different {
            let code = copier::tc_egress(different);
            attached.push(bed.attach(link, Kind::Tc, &code, Hook::Egress)?);
        }
    }
    let ingress = Bed::INGRESS;
    tool(&bed.relay, "tc", &format!("qdisc add dev {ingress} clsact"))?;
    let matching = format!("protocol ip u32 match ip dst {}/32", group(0));
    let words = format!("filter add dev {ingress} ingress {matching} {actions}");
    tool(&bed.relay, "tc", &words)?;
    Ok(Running::Programs {
        _attached: attached,
        _map: None,
    })
}

fn nft(bed: &Bed) -> Result<Running> {
    let mut text = format!(
        "table netdev bench {{ chain c {{ type filter hook ingress device {} priority 0;\n",
        Bed::INGRESS
    );
    for link in &bed.egresses {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "ip daddr {} dup to {link}", group(0));
    }
    text.push_str("}\n}\n");
    bed.relay.nft(&text)?;
    Ok(Running::Kernel)
}

fn smcroute(bed: &Bed) -> Result<Running> {
    /// `MAXVIFS` of `include/uapi/linux/mroute.h`.
    const LINKS: usize = 32;
    ensure!(
        bed.egresses.len() < LINKS,
        "kernel multicast routing has {LINKS} links at most, the ingress included"
    );
    let mut file = NamedTempFile::new().context("cannot make a file")?;
    let ingress = Bed::INGRESS;
    writeln!(file, "phyint {ingress} enable ttl-threshold 1")?;
    for link in &bed.egresses {
        writeln!(file, "phyint {link} enable ttl-threshold 1")?;
    }
    writeln!(
        file,
        "mroute from {ingress} source {} group {} to {}",
        Bed::SENDER,
        group(0),
        bed.egresses.join(" ")
    )?;
    let path = |name: &str| bed.relay.socket(name).display().to_string();
    let mut command = bed.relay.command("smcrouted");
    command
        .args(["-n", "-N", "-l", "info", "-i", "mcr-bench"])
        .arg("-f")
        .arg(file.path())
        .args(["-u", &path("smcroute.sock"), "-P", &path("smcroute.pid")]);
    let process = Process::start("smcrouted", &mut command)?;
    bed.until("kernel multicast routing has the route", || {
        let routes = fs::read_to_string("/proc/thread-self/net/ip_mr_cache")?;
        Ok(routes.lines().count() > 1)
    })?;
    Ok(Running::Daemon {
        process,
        _file: Some(file),
    })
}

fn plain(bed: &Bed) -> Result<Running> {
    let [egress] = &bed.egresses[..] else {
        bail!("the plain copier makes one copy");
    };
    let mut command = bed.relay.command(env::current_exe()?);
    command.args(["plain", Bed::INGRESS, egress]);
    let process = Process::start("the plain copier", &mut command)?;
    process.wait_stderr(LONG, |line| line.contains("ready"))?;
    Ok(Running::Daemon {
        process,
        _file: None,
    })
}

/// What each copy has different.
fn targets(bed: &Bed, edits: Edits) -> Result<Vec<Target>> {
    let indexes = bed.indexes()?.into_iter().enumerate();
    let targets = indexes.map(|(place, index)| {
        let different = match edits {
            Edits::None => None,
            Edits::Mac => Some(Different::Mac(bed.relay.link(&bed.egresses[place])?.mac)),
            Edits::Ttl => Some(Different::Ttl(TTL, ttl(place))),
        };
        Ok((index, different))
    });
    targets.collect()
}

fn bare(bed: &Bed, keep: bool, edits: Edits) -> Result<Running> {
    program(bed, &copier::tc(MACS, &targets(bed, edits)?, keep))
}

fn bare_xdp(bed: &Bed, edits: Edits, generic: bool) -> Result<Running> {
    ensure!(
        edits != Edits::Ttl,
        "the bare program for XDP only writes MAC addresses"
    );
    let beginning = if edits == Edits::Mac { &MACS[..] } else { &[] };
    let hook = if generic { Hook::XdpGeneric } else { Hook::Xdp };
    let running = |code: &Code, map| -> Result<Running> {
        let attached = bed.attach(Bed::INGRESS, Kind::Xdp, code, hook)?;
        Ok(Running::Programs {
            _attached: vec![attached],
            _map: map,
        })
    };
    let indexes = bed.indexes()?;
    if let [only] = indexes[..] {
        return running(&copier::xdp_redirect(beginning, only), None);
    }
    let entries = u32::try_from(indexes.len())?;
    let map = bed
        .relay
        .run(|| Ok(Map::new(MapKind::DevmapHash, 4, 4, entries)?))?;
    bed.relay.run(|| {
        for index in &indexes {
            map.set(&index.to_ne_bytes(), &index.to_ne_bytes())
                .context("a devmap takes no link")?;
        }
        Ok(())
    })?;
    running(&copier::xdp_broadcast(beginning, &map), Some(map))
}

fn mcr(bed: &Bed, subject: Subject) -> Result<Running> {
    let to = bed
        .egresses
        .iter()
        .enumerate()
        .map(|(place, link)| match subject.edits {
            Edits::Ttl => format!("{{link: {link}, ttl: {}}}", ttl(place)),
            Edits::None | Edits::Mac => link.clone(),
        });
    let to = to.collect::<Vec<_>>().join(", ");
    let local = if subject.keep { "keep" } else { "drop" };
    let source = if subject.edits == Edits::Mac {
        "egress"
    } else {
        "auto"
    };
    let relay = |name: &str, groups: &str, join: bool| {
        format!(
            "{{name: {name}, from: {}, to: [{to}], groups: [{groups}], local: {local}, join: {join}, source_mac: {source}}}",
            Bed::INGRESS
        )
    };
    let others: Vec<_> = (1..bed.scene.routes).map(group).collect();
    let mut relays = vec![relay("measured", &group(0), subject.join)];
    if !others.is_empty() {
        relays.push(relay("others", &others.join(", "), false));
    }
    let relays: Vec<_> = relays.iter().map(String::as_str).collect();
    let mut text = rules(&relays);
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "limits: {{routes: {}}}",
        bed.scene.routes.max(1 << 18)
    );
    let words = ["--datapath", subject.datapath.name(), "--stats", "1s"];
    let mcr = Mcr::with_rules(&bed.relay, &text, &words)?;
    Ok(Running::Mcr(Box::new(mcr)))
}

/// The time to live of a copy, where each has another.
fn ttl(copy: usize) -> u8 {
    u8::try_from(copy).map_or(u8::MAX, |copy| copy.saturating_add(FIRST_TTL))
}

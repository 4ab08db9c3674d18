//! The program in the kernel decides about every fixture as the fixture says, and so as the same
//! code does on the host: each is given to `mcr_verdict` by `BPF_PROG_TEST_RUN`, and its word read
//! from the map `mcr_observed`.
//!
//! What a test run can't carry is left to real links: VLAN tags in metadata, unfinished checksums,
//! several datagrams in a frame, frames cut off in the IP header or before, jumbo frames.

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, TestRun as _,
    maps::Array,
    programs::{SchedClassifier, TestRunOptions, Xdp},
};
use mcr::{
    config::model::Local,
    datapath::ebpf::{OBJECT, fill},
    plan::{Means, Table, World, plan},
};
use mcr_common::table::Observed;
use mcr_tests::{
    Netns,
    fixtures::{Expected, Fixture, HOST_MAC, Ingress, fixtures, world},
    needs,
};
use nix::net::if_::if_nametoindex;

/// The kernel takes test frames for ones that arrive on one of these links.
const INGRESS: [&str; 2] = ["in", "trunk"];
/// A frame of `BPF_PROG_TEST_RUN` lies in one page, beside headroom and `struct skb_shared_info` (`net/bpf/test_run.c`).
const LONGEST: usize = 3500;
/// `ifindex` in `struct __sk_buff` of `include/uapi/linux/bpf.h`.
const IFINDEX: std::ops::Range<usize> = 40..44;
/// A context up to and including `ifindex`; the kernel takes the rest for zero.
const CONTEXT: usize = 44;

/// The program with the fixtures' relays in its maps.
struct Kernel {
    object: Ebpf,
    table: Table,
    ingress: [u32; 2],
}

impl Kernel {
    fn load(ingress: [u32; 2]) -> Result<Self> {
        let mut object = Ebpf::load(OBJECT)?;
        // The egress links need not exist, since nothing is sent.
        let world = world([ingress[0], 1001, 1002, ingress[1]]);
        let table = plan(&world, &Table::default())?.table;
        program(&mut object)?.load()?;
        fill(&mut object, &table)?;
        Ok(Self {
            object,
            table,
            ingress,
        })
    }

    fn decide(&mut self, fixture: &Fixture) -> Result<Observed> {
        let ingress = match fixture.ingress {
            Ingress::In => self.ingress[0],
            Ingress::Trunk => self.ingress[1],
        };
        let mut observed: Array<_, Observed> = self
            .object
            .map_mut("mcr_observed")
            .context("no map")?
            .try_into()?;
        observed.set(0, Observed::default(), 0)?;
        let mut context = [0; CONTEXT];
        context[IFINDEX].copy_from_slice(&ingress.to_ne_bytes());
        program(&mut self.object)?.test_run(TestRunOptions {
            data_in: Some(&fixture.frame),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        })?;
        let observed: Array<_, Observed> = self
            .object
            .map("mcr_observed")
            .context("no map")?
            .try_into()?;
        Ok(observed.get(&0, 0)?)
    }

    /// Whether the program's word is what was expected.
    fn meets(&self, observed: Observed, expected: &Expected) -> bool {
        let dropped = |drop_local: &bool| observed.drop_local == u32::from(*drop_local);
        match expected {
            Expected::Pass => observed.outcome == Observed::PASS,
            Expected::Refuse { reason, drop_local } => {
                observed.outcome == Observed::REFUSE
                    && observed.reason == *reason as u32
                    && dropped(drop_local)
            }
            Expected::Relay {
                relays, drop_local, ..
            } => {
                let owner = self.table.owners.get(&observed.slot);
                observed.outcome == Observed::RELAY
                    && owner.is_some_and(|owner| owner.relays == *relays)
                    && dropped(drop_local)
            }
        }
    }
}

fn program(object: &mut Ebpf) -> Result<&mut SchedClassifier> {
    Ok(object
        .program_mut("mcr_verdict")
        .context("no program")?
        .try_into()?)
}

/// Whether a test run can carry the frame as it is: it wants a whole IP header behind a type that
/// announces one (`net/bpf/test_run.c`).
fn fits(fixture: &Fixture) -> bool {
    let shortest = match fixture.frame.get(12..14) {
        Some([0x08, 0x00]) => 14 + 20,
        Some([0x86, 0xdd]) => 14 + 40,
        _ => 14 + 1,
    };
    fixture.stripped_tag.is_none() && (shortest..=LONGEST).contains(&fixture.frame.len())
}

#[test]
fn the_kernel_decides_about_every_fixture_as_it_says() -> Result<()> {
    let netns = Netns::new("test-run")?;
    let mac = HOST_MAC.map(|byte| format!("{byte:02x}")).join(":");
    for link in INGRESS {
        netns.ip(&format!(
            "link add {link} address {mac} type veth peer name other-{link}"
        ))?;
        netns.ip(&format!("link set {link} up"))?;
    }
    netns.run(|| {
        let [ingress, trunk] = INGRESS.map(if_nametoindex);
        let mut kernel = Kernel::load([ingress?, trunk?])?;
        let mut wrong = Vec::new();
        let mut tried = 0;
        for fixture in fixtures().iter().filter(|fixture| fits(fixture)) {
            let observed = kernel
                .decide(fixture)
                .with_context(|| format!("{}: {} bytes", fixture.name, fixture.frame.len()))?;
            tried += 1;
            if !kernel.meets(observed, &fixture.expected) {
                wrong.push(format!(
                    "{}: {:?}, not {:?}",
                    fixture.name, observed, fixture.expected
                ));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        ensure!(
            tried > fixtures().len() / 2,
            "only {tried} fixtures were tried"
        );
        Ok(())
    })
}

/// `struct xdp_md` of `include/uapi/linux/bpf.h`.
const XDP_CONTEXT: usize = 24;
/// `data_end` in it, and `ingress_ifindex`.
const XDP_END: std::ops::Range<usize> = 4..8;
const XDP_IFINDEX: std::ops::Range<usize> = 12..16;
/// `enum xdp_action`.
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// The fixtures' world as XDP wants it to be.
fn xdp_world(ingress: [u32; 2]) -> World {
    let mut world = World {
        means: Means {
            programs: true,
            xdp: true,
            ..Means::default()
        },
        ..world([ingress[0], 1001, 1002, ingress[1]])
    };
    for relay in &mut world.relays {
        relay.local = Local::Drop;
    }
    let links: Vec<u32> = world.links.keys().copied().collect();
    for index in links {
        world.links.change(index, |link| {
            link.offers.xdp = true;
            link.offers.xdp_transmit = true;
        });
    }
    world
}

/// Whether the XDP program is to serve what these relays match.
fn is_served(table: &Table, ingress: u32, relays: &[String]) -> bool {
    table.owners.iter().any(|(id, owner)| {
        owner.ingress == ingress
            && owner.relays == relays
            && table.slots.get(id).is_some_and(|slot| slot.xdp != 0)
    })
}

#[test]
fn xdp_takes_what_it_is_to_serve_and_leaves_all_else_untouched() -> Result<()> {
    needs!(XdpFeatures);
    let netns = Netns::new("test-run")?;
    for link in INGRESS {
        netns.ip(&format!("link add {link} type veth peer name other-{link}"))?;
        netns.ip(&format!("link set {link} up"))?;
    }
    netns.run(|| {
        let [ingress, trunk] = INGRESS.map(if_nametoindex);
        let links = [ingress?, trunk?];
        let table = plan(&xdp_world(links), &Table::default())?.table;
        let mut object = Ebpf::load(OBJECT)?;
        let load = |object: &mut Ebpf| -> Result<()> {
            let program = object.program_mut("mcr_xdp").context("no program")?;
            <&mut Xdp>::try_from(program)?.load()?;
            Ok(())
        };
        load(&mut object)?;
        fill(&mut object, &table)?;
        let program = object.program("mcr_xdp").context("no program")?;
        let program: &Xdp = program.try_into()?;
        let (mut taken, mut left) = (0, 0);
        for fixture in fixtures().iter().filter(|fixture| fits(fixture)) {
            let ingress = links[usize::from(fixture.ingress == Ingress::Trunk)];
            let mut context = [0; XDP_CONTEXT];
            let length = u32::try_from(fixture.frame.len())?;
            context[XDP_END].copy_from_slice(&length.to_ne_bytes());
            context[XDP_IFINDEX].copy_from_slice(&ingress.to_ne_bytes());
            let mut out = vec![0; LONGEST];
            let result = program.test_run(TestRunOptions {
                data_in: Some(&fixture.frame),
                data_out: Some(&mut out),
                ctx_in: Some(&context),
                ..TestRunOptions::default()
            })?;
            out.truncate(result.data_size_out as usize);
            let name = &fixture.name;
            let action = result.return_value;
            match &fixture.expected {
                Expected::Relay { relays, failed, .. }
                    if !fixture.to_this_host
                        && failed.is_empty()
                        && is_served(&table, ingress, relays) =>
                {
                    ensure!(action == XDP_REDIRECT, "{name}: action {action}");
                    taken += 1;
                }
                Expected::Relay { .. } if action == XDP_REDIRECT => taken += 1,
                _ => {
                    ensure!(action == XDP_PASS, "{name}: action {action}");
                    ensure!(out == fixture.frame, "{name}: {out:02x?}");
                    left += 1;
                }
            }
        }
        ensure!(taken > 50 && left > 50, "{taken} taken, {left} left");
        Ok(())
    })
}

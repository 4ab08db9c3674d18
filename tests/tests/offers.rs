//! What links offer to programs is known as it is, by event:
//!
//! - Whether a driver runs XDP programs and sends what they redirect to it: a veth does the latter as
//!   long as its other end has GRO on or a program, in whatever namespace that is.
//! - Whether tags are taken out of frames, by what ethtool turns on and off.
//! - Whether checksums may be left to it, by the same.
//! - Programs of others, queues, filters and programs on the way out.
//! - After more events than a socket holds, everything is known as it is.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use mcr::{
    links::Links,
    plan::{LinkState, Offers},
};
use mcr_tests::{Direction, Foreign, Netns, needs};
use tokio::{runtime, time::timeout};

const WAIT: Duration = Duration::from_mins(2);

/// Runs `work` in a namespace with the link `v0`, the other end of which is `p0` in another one.
fn inside(work: impl AsyncFnOnce(&Netns, &Netns) -> Result<()> + Send) -> Result<()> {
    let [host, other] = [Netns::new("host")?, Netns::new("other")?];
    host.veth_to(&other, "v0", "p0")?;
    host.wait_running(&["v0"], WAIT)?;
    let (here, there) = (&host, &other);
    host.run(move || {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(work(here, there))
    })
}

/// The link called `name`.
fn named(links: &Links, name: &str) -> Result<LinkState> {
    let found = links.map().named(name);
    found
        .map(|(_, link)| link.clone())
        .with_context(|| format!("there is no {name}"))
}

/// Notes changes until `condition` holds of what the link called `name` offers.
async fn until(links: &mut Links, name: &str, condition: impl Fn(&Offers) -> bool) -> Result<()> {
    while !condition(&named(links, name)?.offers) {
        let event = timeout(WAIT, links.changed()).await;
        event.with_context(|| format!("{:?}", links.map()))?;
        links.note().await;
    }
    Ok(())
}

#[test]
fn a_veth_sends_for_xdp_as_long_as_its_other_end_takes_it() -> Result<()> {
    needs!(XdpFeatures);
    inside(async |netns, other| {
        let mut links = Links::open(true).await?;
        let offers = named(&links, "v0")?.offers;
        ensure!(offers.device == "veth" && offers.xdp, "{offers:?}");
        ensure!(!offers.xdp_transmit && !offers.queues, "{offers:?}");
        ensure!(offers.foreign_xdp.is_none(), "{offers:?}");
        other.ethtool("-K p0 gro on")?;
        until(&mut links, "v0", |offers| offers.xdp_transmit).await?;
        other.ethtool("-K p0 gro off")?;
        until(&mut links, "v0", |offers| !offers.xdp_transmit).await?;
        let program = Foreign::xdp()?;
        let pin = program.pin().display();
        other.ip(&format!("link set p0 xdpdrv pinned {pin}"))?;
        until(&mut links, "v0", |offers| offers.xdp_transmit).await?;
        other.ip("link set p0 xdpdrv off")?;
        until(&mut links, "v0", |offers| !offers.xdp_transmit).await?;
        // A bridge does neither, and a new link is asked as well.
        netns.bridge("br0")?;
        netns.ip("link add v1 type veth peer name p1")?;
        while links.map().named("v1").is_none() {
            timeout(WAIT, links.changed()).await?;
            links.note().await;
        }
        until(&mut links, "v1", |offers| offers.xdp).await?;
        ensure!(!named(&links, "br0")?.offers.xdp);
        Ok(())
    })
}

#[test]
fn programs_of_others_come_and_go() -> Result<()> {
    inside(async |netns, _| {
        let program = Foreign::xdp()?;
        let pin = program.pin().display();
        let mut links = Links::open(true).await?;
        for mode in ["xdpdrv", "xdpgeneric"] {
            netns.ip(&format!("link set v0 {mode} pinned {pin}"))?;
            until(&mut links, "v0", |offers| offers.foreign_xdp.is_some()).await?;
            let again = named(&Links::open(true).await?, "v0")?;
            ensure!(again == named(&links, "v0")?, "{again:?}");
            netns.ip(&format!("link set v0 {mode} off"))?;
            until(&mut links, "v0", |offers| offers.foreign_xdp.is_none()).await?;
        }
        Ok(())
    })
}

#[test]
fn tags_are_taken_out_as_ethtool_says() -> Result<()> {
    inside(async |netns, _| {
        let mut links = Links::open(true).await?;
        ensure!(named(&links, "v0")?.offers.strips_tags);
        netns.ethtool("-K v0 rxvlan off rx-vlan-stag-hw-parse off")?;
        until(&mut links, "v0", |offers| !offers.strips_tags).await?;
        ensure!(!named(&Links::open(true).await?, "v0")?.offers.strips_tags);
        netns.ethtool("-K v0 rxvlan on")?;
        until(&mut links, "v0", |offers| offers.strips_tags).await
    })
}

#[test]
fn checksums_are_left_to_links_as_ethtool_says() -> Result<()> {
    inside(async |netns, _| {
        netns.bridge("br0")?;
        netns.ip("link set v0 master br0")?;
        netns.ip("link add v1 type veth peer name p1")?;
        netns.ip("link add mv0 link v1 type macvlan mode bridge")?;
        let mut links = Links::open(true).await?;
        let takes = |links: &Links, name: &str| -> Result<bool> {
            Ok(named(links, name)?.offers.takes_unfinished)
        };
        for name in ["v0", "br0", "mv0"] {
            ensure!(takes(&links, name)?, "{name}");
        }
        netns.ethtool("-K v0 tx off")?;
        until(&mut links, "v0", |offers| !offers.takes_unfinished).await?;
        ensure!(!takes(&Links::open(true).await?, "v0")?);
        // Who sends by a port has checksums finished on the way there.
        ensure!(takes(&Links::open(true).await?, "br0")?);
        netns.ethtool("-K v0 tx on")?;
        until(&mut links, "v0", |offers| offers.takes_unfinished).await
    })
}

#[test]
fn queues_and_filters_on_the_way_out_are_seen() -> Result<()> {
    inside(async |netns, _| {
        let mut links = Links::open(true).await?;
        netns.tc("qdisc add dev v0 root pfifo")?;
        until(&mut links, "v0", |offers| offers.queues).await?;
        ensure!(named(&Links::open(true).await?, "v0")?.offers.queues);
        netns.tc("qdisc del dev v0 root")?;
        until(&mut links, "v0", |offers| !offers.queues).await?;
        // The qdisc alone does nothing, nor do filters of what arrives.
        netns.tc("qdisc add dev v0 clsact")?;
        let program = Foreign::tc(1)?;
        let pin = program.pin().display();
        netns.tc(&format!("filter add dev v0 ingress bpf da pinned {pin}"))?;
        netns.tc(&format!("filter add dev v0 egress bpf da pinned {pin}"))?;
        until(&mut links, "v0", |offers| offers.queues).await?;
        ensure!(named(&Links::open(true).await?, "v0")?.offers.queues);
        netns.tc("filter del dev v0 egress")?;
        until(&mut links, "v0", |offers| !offers.queues).await?;
        ensure!(!named(&Links::open(true).await?, "v0")?.offers.queues);
        Ok(())
    })
}

#[test]
fn programs_on_the_way_out_are_seen_when_somebody_looks() -> Result<()> {
    needs!(Tcx);
    inside(async |netns, _| {
        let mut links = Links::open(true).await?;
        let index = netns.link("v0")?.index;
        let leaving =
            |links: &Links| -> Result<usize> { Ok(named(links, "v0")?.offers.leaving.len()) };
        ensure!(links.look(&[index].into()).is_empty() && leaving(&links)? == 0);
        let program = Foreign::tc(1)?;
        let attached = program.on_tcx(netns, "v0", Direction::Egress)?;
        ensure!(links.look(&[index].into()) == [index].into() && leaving(&links)? == 1);
        ensure!(links.look(&[index].into()).is_empty() && leaving(&links)? == 1);
        ensure!(leaving(&Links::open(true).await?)? == 1);
        drop(attached);
        // Any news of the link is a reason to look as well.
        netns.ip("link set v0 mtu 1400")?;
        until(&mut links, "v0", |offers| offers.leaving.is_empty()).await
    })
}

#[test]
fn filters_that_links_share_are_seen() -> Result<()> {
    inside(async |netns, _| {
        netns.tc("qdisc add dev v0 egress_block 7 clsact")?;
        let mut links = Links::open(true).await?;
        let program = Foreign::tc(1)?;
        let pin = program.pin().display();
        netns.tc(&format!("filter add block 7 bpf da pinned {pin}"))?;
        until(&mut links, "v0", |offers| offers.queues).await
    })
}

/// Whether the kernel has dropped messages for a socket of this namespace that hears of traffic control.
fn has_overrun(netns: &Netns) -> Result<bool> {
    const ROUTE: &str = "0";
    const TRAFFIC_CONTROL: u32 = 1 << (4 - 1);
    let sockets = netns.proc_net("netlink")?;
    for line in sockets.lines().skip(1) {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, protocol, _, groups, _, _, _, _, drops, ..] = words[..] else {
            bail!("a strange line: {line}");
        };
        let groups = u32::from_str_radix(groups, 16)?;
        if protocol == ROUTE && groups & TRAFFIC_CONTROL != 0 && drops != "0" {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn after_an_overrun_everything_is_as_it_is() -> Result<()> {
    needs!(XdpFeatures);
    inside(async |netns, other| {
        netns.ip("link add busy type bridge")?;
        let mut links = Links::open(true).await?;
        let busy: Vec<_> = (0..30_000)
            .map(|n| format!("qdisc replace dev busy root pfifo limit {}", 1 + n))
            .collect();
        ensure!(!has_overrun(netns)?);
        netns.tc_batch(&busy.join("\n"))?;
        ensure!(has_overrun(netns)?, "the socket had room for all events");
        other.ethtool("-K p0 gro on")?;
        netns.tc("qdisc add dev v0 root pfifo")?;
        until(&mut links, "v0", |offers| {
            offers.queues && offers.xdp_transmit
        })
        .await
    })
}

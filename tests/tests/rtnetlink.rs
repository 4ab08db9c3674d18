//! What is known of links is what the kernel has, by event:
//!
//! - Addresses of both families with their prefixes, and directed broadcast addresses, whichever
//!   way they come and go.
//! - A storm of events is one change; a link that was gone, or too small for IPv6, is seen so once
//!   even if all is well again before anybody looks.
//! - After more events than a socket holds, everything is known as it is.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mcr::{links::Links, plan::LinkState};
use mcr_tests::Netns;
use tokio::{runtime, time::timeout};

const WAIT: Duration = Duration::from_mins(2);

/// Runs `work` in a namespace with the links `v0` and `v1`, both ends of a veth, which are down.
fn inside(work: impl AsyncFnOnce(&Netns) -> Result<()> + Send) -> Result<()> {
    let netns = Netns::new("host")?;
    netns.ip("link add v0 type veth peer name v1")?;
    let here = &netns;
    netns.run(move || {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(work(here))
    })
}

/// The link called `name`.
fn named(links: &Links, name: &str) -> Result<LinkState> {
    let found = links.map().named(name);
    found
        .map(|(_, link)| link.clone())
        .with_context(|| format!("there is no {name}"))
}

/// Notes changes until `condition` holds of the link called `name`.
async fn until(
    links: &mut Links,
    name: &str,
    condition: impl Fn(&LinkState) -> bool,
) -> Result<()> {
    while !links
        .map()
        .named(name)
        .is_some_and(|(_, link)| condition(link))
    {
        let event = timeout(WAIT, links.changed()).await;
        event.with_context(|| format!("{:?}", links.map()))?;
        links.note().await;
    }
    Ok(())
}

fn has(link: &LinkState, nets: &[&str], broadcasts: &[&str]) -> bool {
    let v4 = |net: &&String| !net.starts_with("fe80");
    let addresses: Vec<_> = link.addresses.iter().map(ToString::to_string).collect();
    let addresses: Vec<_> = addresses.iter().filter(v4).collect();
    let known: Vec<_> = link.broadcasts.iter().map(ToString::to_string).collect();
    addresses == nets && known == broadcasts
}

#[test]
fn addresses_come_and_go() -> Result<()> {
    inside(async |netns| {
        netns.ip("address add 10.1.0.1/16 brd + dev v0")?;
        netns.ip("address add 10.2.0.1/24 dev v0")?;
        netns.address("v0", "fd00::1/64")?;
        let mut links = Links::open(true).await?;
        let nets = ["10.1.0.1/16", "10.2.0.1/24", "fd00::1/64"];
        // The second network was not given one, and has one all the same.
        let broadcasts = ["10.1.255.255", "10.2.0.255"];
        ensure!(has(&named(&links, "v0")?, &nets, &broadcasts));
        ensure!(has(&named(&links, "v1")?, &[], &[]));

        netns.ip("address add 10.1.0.2/16 brd + dev v0")?;
        netns.ip("address del 10.1.0.1/16 dev v0")?;
        netns.ip("address add 10.1.0.3/16 brd 10.1.0.99 dev v0")?;
        netns.ip("address del fd00::1/64 dev v0")?;
        netns.address("v0", "fd00::2/127")?;
        let nets = ["10.1.0.3/16", "10.2.0.1/24", "fd00::2/127"];
        let broadcasts = ["10.1.0.99", "10.1.255.255", "10.2.0.255"];
        until(&mut links, "v0", |link| has(link, &nets, &broadcasts)).await?;
        // What has changed of the link itself changes nothing of them, nor does a new name.
        netns.ip("link set v0 name v2 mtu 1400")?;
        until(&mut links, "v2", |link| link.mtu == 1400).await?;
        ensure!(has(&named(&links, "v2")?, &nets, &broadcasts));
        // Another one of its index has none of them.
        let index = netns.link("v2")?.index;
        netns.ip("link del v2")?;
        netns.ip(&format!("link add v2 index {index} type bridge"))?;
        until(&mut links, "v2", |link| link.mtu == 1500).await?;
        ensure!(has(&named(&links, "v2")?, &[], &[]), "{:?}", links.map());
        Ok(())
    })
}

#[test]
fn a_storm_is_one_change() -> Result<()> {
    const LINKS: usize = 450;
    inside(async |netns| {
        let mut links = Links::open(true).await?;
        let lines: Vec<_> = (0..LINKS)
            .map(|n| {
                format!(
                    "link add s{n} type bridge\nlink set s{n} up\naddress add 10.9.0.1/24 dev s{n}"
                )
            })
            .collect();
        netns.ip_batch(&lines.join("\n"))?;
        timeout(WAIT, links.changed()).await?;
        links.note().await;
        let map = links.map();
        for n in 0..LINKS {
            let (_, link) = map.named(&format!("s{n}")).context("a link is missing")?;
            let as_set = has(link, &["10.9.0.1/24"], &["10.9.0.255"]);
            ensure!(link.up && as_set, "{link:?}");
        }
        Ok(())
    })
}

#[test]
fn what_was_gone_is_seen_to_be_gone() -> Result<()> {
    inside(async |netns| {
        let mut links = Links::open(true).await?;
        let index = netns.link("v0")?.index;
        netns.ip("link del v0")?;
        netns.ip(&format!("link add v0 index {index} type veth peer name v1"))?;
        links.note().await;
        ensure!(links.map().named("v0").is_none());
        timeout(WAIT, links.changed()).await?;
        links.note().await;
        ensure!(links.map().named("v0").is_some());

        netns.ip("link set v0 mtu 1000")?;
        netns.ip("link set v0 mtu 1500")?;
        links.note().await;
        ensure!(named(&links, "v0")?.mtu == 1000);
        timeout(WAIT, links.changed()).await?;
        links.note().await;
        ensure!(named(&links, "v0")?.mtu == 1500);
        Ok(())
    })
}

/// More than a socket holds happens to a bridge.
fn overrun(netns: &Netns) -> Result<()> {
    let busy: Vec<_> = (0..8000)
        .map(|n| format!("link set busy mtu {}", 1000 + n % 400))
        .collect();
    netns.ip_batch(&busy.join("\n"))
}

#[test]
fn after_an_overrun_everything_is_as_it_is() -> Result<()> {
    inside(async |netns| {
        netns.ip("link add busy type bridge")?;
        let mut links = Links::open(true).await?;
        overrun(netns)?;
        netns.ip("link del v0")?;
        netns.ip("link add last type bridge")?;
        netns.ip("address add 10.2.0.1/24 brd + dev last")?;
        until(&mut links, "last", |link| {
            has(link, &["10.2.0.1/24"], &["10.2.0.255"])
        })
        .await?;
        ensure!(links.map().named("v0").is_none() && links.map().named("v1").is_none());
        Ok(())
    })
}

#[test]
fn after_an_overrun_a_stranger_is_known_as_one() -> Result<()> {
    inside(async |netns| {
        netns.ip("link add busy type bridge")?;
        netns.address("v0", "10.2.0.1/24")?;
        let mut links = Links::open(true).await?;
        overrun(netns)?;
        let index = netns.link("v0")?.index;
        netns.ip("link del v0")?;
        netns.ip(&format!("link add v0 index {index} type veth peer name v1"))?;
        netns.address("v0", "10.3.0.1/24")?;
        timeout(WAIT, links.changed()).await?;
        let touched = links.note().await;
        ensure!(touched.contains(&index) && links.map().named("v0").is_none());
        let nets = ["10.3.0.1/24"];
        until(&mut links, "v0", |link| has(link, &nets, &["10.3.0.255"])).await
    })
}

//! Links in a namespace: making them, and waiting until they carry frames.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

use crate::Netns;

/// Events of links appearing, going and changing: `RTMGRP_LINK` of rtnetlink(7).
const RTMGRP_LINK: u32 = 1;

/// A link as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The interface index in its namespace.
    pub index: u32,
    /// The address of the link itself.
    pub mac: [u8; 6],
    /// Whether it is up and has a carrier.
    pub running: bool,
}

impl Netns {
    /// Makes a pair of veths: `name` here and `peer` in `other`, both up.
    pub fn veth_to(&self, other: &Self, name: &str, peer: &str) -> Result<()> {
        let there = other.path();
        self.ip(&format!(
            "link add {name} type veth peer name {peer} netns {}",
            there.display()
        ))?;
        self.ip(&format!("link set {name} up"))?;
        other.ip(&format!("link set {peer} up"))
    }

    /// Makes a bridge that is up and forwards at once: no spanning tree, no delay. Snooping is on
    /// and there is no querier, as the kernel has it.
    pub fn bridge(&self, name: &str) -> Result<()> {
        self.ip(&format!(
            "link add {name} type bridge stp_state 0 forward_delay 0"
        ))?;
        self.ip(&format!("link set {name} up"))
    }

    /// Runs `bridge` with these words, as `netns.bridge_tool("vlan add dev p0 vid 20")`.
    pub fn bridge_tool(&self, words: &str) -> Result<()> {
        self.tool("bridge", words, None).map(drop)
    }

    /// Gives a link an address, as `10.77.0.2/24`. IPv6 addresses are usable at once.
    pub fn address(&self, link: &str, address: &str) -> Result<()> {
        let no_wait = if address.contains(':') { "nodad" } else { "" };
        self.ip(&format!("address add {address} dev {link} {no_wait}"))
    }

    /// The link called `name`.
    pub fn link(&self, name: &str) -> Result<Link> {
        let links = self.run(links)?;
        links.get(name).copied().with_context(|| {
            let mut names: Vec<_> = links.keys().map(String::as_str).collect();
            names.sort_unstable();
            format!(
                "namespace {} has no link {name}; it has {}",
                self.name(),
                names.join(", ")
            )
        })
    }

    /// Waits until all of `names` are up and have a carrier.
    pub fn wait_running(&self, names: &[&str], timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        self.run(|| {
            // Subscribed before the first look, so that no change falls in between.
            let events = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
                SockProtocol::NetlinkRoute,
            )
            .context("cannot open a netlink socket")?;
            bind(events.as_raw_fd(), &NetlinkAddr::new(0, RTMGRP_LINK))
                .context("cannot subscribe to link events")?;
            loop {
                let known = links()?;
                let waiting: Vec<_> = names
                    .iter()
                    .filter(|name| !known.get(**name).is_some_and(|link| link.running))
                    .copied()
                    .collect();
                if waiting.is_empty() {
                    return Ok(());
                }
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    bail!(
                        "no carrier in namespace {} after {timeout:?}: {}",
                        self.name(),
                        waiting.join(", ")
                    );
                }
                let mut interest = [PollFd::new(events.as_fd(), PollFlags::POLLIN)];
                let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
                match poll(&mut interest, wait) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(error) => return Err(error).context("cannot wait for link events"),
                }
                // What the events say is read from the links themselves.
                let mut event = [0; 8192];
                while recv(events.as_raw_fd(), &mut event, MsgFlags::empty()).is_ok() {}
            }
        })
    }
}

/// All links of the namespace of the calling thread.
fn links() -> Result<HashMap<String, Link>> {
    let mut found = HashMap::new();
    for entry in getifaddrs().context("cannot list the links")? {
        let Some(address) = entry.address.as_ref().and_then(|a| a.as_link_addr()) else {
            continue;
        };
        let wanted = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
        let link = Link {
            index: u32::try_from(address.ifindex()).context("an interface index is too large")?,
            mac: address.addr().unwrap_or_default(),
            running: entry.flags.contains(wanted),
        };
        found.insert(entry.interface_name, link);
    }
    Ok(found)
}

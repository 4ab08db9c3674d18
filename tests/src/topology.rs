//! Namespaces joined as the tests and the demo need them.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;

use crate::{Datapath, Host, Netns};

/// Long enough for any machine; carriers come in milliseconds.
const CARRIER: Duration = Duration::from_secs(20);

/// What may not matter to a relay below the IP stack: reverse paths are checked strictly, and a
/// firewall forwards nothing.
const FORWARD_DROP: &str = "table inet filter {
    chain forward { type filter hook forward priority filter; policy drop; }
}";

/// A host that relays, between a sender and receivers. No namespace has a route beyond its own
/// links, nor a default one.
#[derive(Debug)]
pub struct Topology {
    /// The host that relays; reverse-path filter strict, forwarding on, FORWARD policy DROP.
    pub relay: Netns,
    /// Has one link, [`Self::SENDER_LINK`].
    pub sender: Netns,
    /// Has all of [`Self::receiver_links`].
    pub receiver: Netns,
    /// The relay's link towards the sender.
    pub ingress: String,
    /// The relay's links towards the receivers.
    pub egresses: Vec<String>,
    /// The receiver's links, in the order of the egresses they are behind.
    pub receiver_links: Vec<String>,
}

impl Topology {
    /// The sender's link. Its addresses are [`Self::SENDER`] and [`Self::SENDER_V6`].
    pub const SENDER_LINK: &'static str = "eth0";
    /// The sender's IPv4 address.
    pub const SENDER: &'static str = "10.77.0.2";
    /// The sender's IPv6 address.
    pub const SENDER_V6: &'static str = "fd77::2";

    /// Two bridges, `br0` with the sender behind it and `br1` with the receiver:
    ///
    /// ```text
    /// sender eth0 ── snd ┐            ┌ rcv ── eth0 receiver
    ///  10.77.0.2        br0  relay  br1         10.77.1.2
    ///  fd77::2      10.77.0.1    10.77.1.1      fd77:0:0:1::2
    /// ```
    pub fn dual_bridge() -> Result<Self> {
        let topology = Self::hosts("br0", vec!["br1".into()], vec!["eth0".into()])?;
        let Self {
            relay,
            sender,
            receiver,
            ..
        } = &topology;
        relay.bridge("br0")?;
        relay.bridge("br1")?;
        relay.veth_to(sender, "snd", Self::SENDER_LINK)?;
        relay.veth_to(receiver, "rcv", "eth0")?;
        relay.ip("link set snd master br0")?;
        relay.ip("link set rcv master br1")?;
        topology.finish_dual(&["snd", "rcv"])
    }

    /// What [`Self::dual_bridge`] is, for a datapath that relays from bridges. Of XDP, which does not, the links
    /// of these names are veths to sender and receiver, on which it is right in both directions.
    pub fn dual(datapath: Datapath) -> Result<Self> {
        if datapath != Datapath::Xdp {
            return Self::dual_bridge();
        }
        let topology = Self::hosts("br0", vec!["br1".into()], vec!["eth0".into()])?;
        for (link, there) in [("br0", &topology.sender), ("br1", &topology.receiver)] {
            topology.relay.veth_to(there, link, "eth0")?;
            there.ethtool("-K eth0 txvlan off tx-vlan-stag-hw-insert off gro on")?;
            let here = format!("-K {link} rxvlan off rx-vlan-stag-hw-parse off");
            topology.relay.ethtool(&here)?;
        }
        topology.finish_dual(&[])
    }

    /// Addresses two segments and waits until every link carries frames.
    fn finish_dual(self, ports: &[&str]) -> Result<Self> {
        for (netns, link, addresses) in [
            (&self.relay, "br0", ["10.77.0.1/24", "fd77::1/64"]),
            (&self.relay, "br1", ["10.77.1.1/24", "fd77:0:0:1::1/64"]),
            (&self.receiver, "eth0", ["10.77.1.2/24", "fd77:0:0:1::2/64"]),
        ] {
            for address in addresses {
                netns.address(link, address)?;
            }
        }
        self.finish(ports)
    }

    /// One veth `in0` towards the sender and `count` veths `out0`, `out1`, … towards links `eth0`,
    /// `eth1`, … of one receiver, which have the addresses `10.77.1.2/24`, `10.77.2.2/24`, … and
    /// `fd77:0:0:1::2/64`, `fd77:0:0:2::2/64`, … (in hexadecimal). `count` is at most 254.
    pub fn fan_out(count: u8) -> Result<Self> {
        anyhow::ensure!(count <= 254, "there are addresses for 254 receivers only");
        let names = |kind: &str| (0..count).map(|i| format!("{kind}{i}")).collect();
        let topology = Self::hosts("in0", names("out"), names("eth"))?;
        let Self {
            relay,
            sender,
            receiver,
            ..
        } = &topology;
        relay.veth_to(sender, "in0", Self::SENDER_LINK)?;
        relay.address("in0", "10.77.0.1/24")?;
        relay.address("in0", "fd77::1/64")?;
        let there = receiver.path();
        let (mut here, mut behind) = (String::new(), String::new());
        for i in 0..count {
            let net = u16::from(i) + 1;
            // Writing to a string cannot fail.
            let _ = writeln!(
                here,
                "link add out{i} type veth peer name eth{i} netns {}\n\
                 link set out{i} up\n\
                 address add 10.77.{net}.1/24 dev out{i}\n\
                 address add fd77:0:0:{net:x}::1/64 dev out{i} nodad",
                there.display()
            );
            let _ = writeln!(
                behind,
                "link set eth{i} up\n\
                 address add 10.77.{net}.2/24 dev eth{i}\n\
                 address add fd77:0:0:{net:x}::2/64 dev eth{i} nodad"
            );
        }
        relay.ip_batch(&here)?;
        receiver.ip_batch(&behind)?;
        topology.finish(&[])
    }

    /// Makes veths what XDP wants them to be: no tags beside frames on their way to the ingress, and
    /// receivers that take frames from an XDP program, because they have GRO on.
    pub fn let_xdp(&self) -> Result<()> {
        self.sender.ethtool(&format!(
            "-K {} txvlan off tx-vlan-stag-hw-insert off",
            Self::SENDER_LINK
        ))?;
        self.relay.ethtool(&format!(
            "-K {} rxvlan off rx-vlan-stag-hw-parse off",
            self.ingress
        ))?;
        for link in &self.receiver_links {
            self.receiver.ethtool(&format!("-K {link} gro on"))?;
        }
        Ok(())
    }

    fn hosts(ingress: &str, egresses: Vec<String>, receiver_links: Vec<String>) -> Result<Self> {
        let relay = Netns::new("relay")?;
        // Before there are links, which take the default.
        for scope in ["all", "default"] {
            relay.sysctl(&format!("net/ipv4/conf/{scope}/rp_filter"), "1")?;
        }
        relay.sysctl("net/ipv4/ip_forward", "1")?;
        relay.nft(FORWARD_DROP)?;
        Ok(Self {
            relay,
            sender: Netns::new("sender")?,
            receiver: Netns::new("receiver")?,
            ingress: ingress.to_owned(),
            egresses,
            receiver_links,
        })
    }

    /// Addresses the sender and waits until every link carries frames.
    fn finish(self, ports: &[&str]) -> Result<Self> {
        self.sender
            .address(Self::SENDER_LINK, &format!("{}/24", Self::SENDER))?;
        self.sender
            .address(Self::SENDER_LINK, &format!("{}/64", Self::SENDER_V6))?;
        let mut here: Vec<&str> = self.egresses.iter().map(String::as_str).collect();
        here.push(&self.ingress);
        here.extend(ports);
        self.relay.wait_running(&here, CARRIER)?;
        self.sender.wait_running(&[Self::SENDER_LINK], CARRIER)?;
        let there: Vec<&str> = self.receiver_links.iter().map(String::as_str).collect();
        self.receiver.wait_running(&there, CARRIER)?;
        Ok(self)
    }
}

impl Host for Topology {
    fn relay(&self) -> &Netns {
        &self.relay
    }

    fn suit(&self, datapath: Datapath) -> Result<()> {
        match datapath {
            Datapath::Xdp => self.let_xdp(),
            Datapath::Tcx | Datapath::Clsact | Datapath::AfPacket | Datapath::Auto => Ok(()),
        }
    }
}

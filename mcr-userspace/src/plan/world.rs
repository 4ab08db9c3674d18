//! Everything the plan depends on, as a plain value.

use std::{collections::BTreeMap, net::IpAddr};

use crate::config::model::{LinkSelector, Relay};

/// What the user wants and what exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// The relays that are wanted. Names are unique.
    pub relays: Vec<Relay>,
    /// The links that exist in this network namespace, by interface index.
    pub links: BTreeMap<u32, LinkState>,
    /// Links the datapath could not be attached to, with the reason. They are left alone until
    /// they change.
    pub refused: BTreeMap<u32, String>,
    /// The address of copies with `source_mac: relay`.
    pub relay_mac: [u8; 6],
    /// MAC addresses of stations that the plan wants to know, by interface index and address.
    pub neighbours: BTreeMap<(u32, IpAddr), [u8; 6]>,
    /// Whether attachments outlive this process, so that they need a lease.
    pub leased: bool,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Its name.
    pub name: String,
    /// Its alternative names.
    pub alternative_names: Vec<String>,
    /// What it is.
    pub kind: LinkKind,
    /// Its own address.
    pub mac: [u8; 6],
    /// The largest IP packet it takes, in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Interface index of the bridge, bond or other master it is a port of.
    pub master: Option<u32>,
    /// Interface index of the link it is stacked on (VLAN, macvlan), in this network namespace.
    pub parent: Option<u32>,
}

/// What a link is, as far as relaying differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// Made by software: a bridge, a veth, a tap.
    Software,
    /// An Ethernet card.
    Physical,
    /// A Wi-Fi card.
    Wireless,
    /// The loopback device.
    Loopback,
    /// It has no Ethernet header: tun, WireGuard, PPP.
    NoEthernet,
}

impl World {
    /// The link a selector stands for, with its interface index.
    #[must_use]
    pub fn find(&self, selector: &LinkSelector) -> Option<(u32, &LinkState)> {
        let LinkSelector::Name(name) = selector;
        let name = name.as_str();
        let by_name = |link: &LinkState| link.name == name;
        let by_alternative = |link: &LinkState| link.alternative_names.iter().any(|n| n == name);
        let find = |wanted: &dyn Fn(&LinkState) -> bool| {
            self.links
                .iter()
                .find(|(_, link)| wanted(link))
                .map(|(index, link)| (*index, link))
        };
        find(&by_name).or_else(|| find(&by_alternative))
    }
}

//! What hosts report to routers and switches, read from frames by offsets alone, and what switches
//! and links make of it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{Captured, Netns};

/// What is said of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Said {
    /// A report of IGMPv1.
    Report1,
    /// A report of IGMPv2 or MLDv1.
    Report2,
    /// A leave of IGMPv2 or done of MLDv1.
    Leave2,
    /// A record of IGMPv3 or MLDv2, of this type (RFC 9776 section 4.2.12).
    Record(u8),
}

impl Said {
    /// An answer: all but these sources are wanted.
    pub const IS_EXCLUDE: Self = Self::Record(2);
    /// All but these sources are wanted now.
    pub const TO_EXCLUDE: Self = Self::Record(4);
    /// These sources alone are wanted now.
    pub const TO_INCLUDE: Self = Self::Record(3);
    /// These sources are wanted too.
    pub const ALLOW: Self = Self::Record(5);
    /// These sources are not wanted any more.
    pub const BLOCK: Self = Self::Record(6);
}

/// What a host says of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reported {
    /// The address the host says it from.
    pub from: IpAddr,
    /// What.
    pub said: Said,
    /// The group.
    pub group: IpAddr,
    /// The sources.
    pub sources: Vec<IpAddr>,
}

impl Captured {
    /// What an IGMP or MLD frame reports; nothing if it is none.
    #[must_use]
    pub fn reported(&self) -> Vec<Reported> {
        read(&self.bytes).unwrap_or_default()
    }
}

fn read(frame: &[u8]) -> Option<Vec<Reported>> {
    let ip = frame.get(14..)?;
    match (frame.get(12..14)?, ip.first()? >> 4) {
        ([0x08, 0x00], 4) if *ip.get(9)? == 2 => {
            let header = usize::from(ip[0] & 0xf) * 4;
            let message = ip.get(header..usize::from(half(ip, 2)?))?;
            let from = address(ip, 12, 4)?;
            let simple = |said| Some(vec![about(from, said, address(message, 4, 4)?)]);
            match message.first()? {
                0x12 => simple(Said::Report1),
                0x16 => simple(Said::Report2),
                0x17 => simple(Said::Leave2),
                0x22 => records(from, message, 4),
                _ => None,
            }
        }
        // Hop-by-hop options of eight bytes, then ICMPv6.
        ([0x86, 0xdd], 6) if ip.get(6)? == &0 && ip.get(40..42)? == [58, 0] => {
            let message = ip.get(48..40 + usize::from(half(ip, 4)?))?;
            let from = address(ip, 8, 16)?;
            let simple = |said| Some(vec![about(from, said, address(message, 8, 16)?)]);
            match message.first()? {
                131 => simple(Said::Report2),
                132 => simple(Said::Leave2),
                143 => records(from, message, 16),
                _ => None,
            }
        }
        _ => None,
    }
}

fn about(from: IpAddr, said: Said, group: IpAddr) -> Reported {
    Reported {
        from,
        said,
        group,
        sources: Vec::new(),
    }
}

fn records(from: IpAddr, message: &[u8], size: usize) -> Option<Vec<Reported>> {
    let mut reported = Vec::new();
    let mut at = 8;
    for _ in 0..half(message, 6)? {
        let said = Said::Record(*message.get(at)?);
        let sources = usize::from(half(message, at + 2)?);
        let group = address(message, at + 4, size)?;
        at += 4 + size;
        let end = at + sources * size;
        let sources = (at..end).step_by(size);
        reported.push(Reported {
            from,
            said,
            group,
            sources: sources
                .map(|at| address(message, at, size))
                .collect::<Option<_>>()?,
        });
        at = end;
    }
    Some(reported)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn address(bytes: &[u8], at: usize, size: usize) -> Option<IpAddr> {
    let bytes = bytes.get(at..at + size)?;
    match size {
        4 => Some(IpAddr::from(*bytes.first_chunk::<4>()?)),
        _ => Some(IpAddr::from(*bytes.first_chunk::<16>()?)),
    }
}

/// A group that a bridge delivers to one of its ports, or to its own host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Delivery {
    /// The port, or the bridge itself.
    pub port: String,
    /// The group.
    pub group: IpAddr,
    /// The one source; `None`: any.
    pub source: Option<IpAddr>,
}

impl Netns {
    /// What a snooping bridge has learned.
    pub fn learned(&self, bridge: &str) -> Result<BTreeSet<Delivery>> {
        let output = self.tool("bridge", &format!("-j mdb show dev {bridge}"), None)?;
        let tables: Value = serde_json::from_slice(&output.stdout).context("no JSON")?;
        let entries = tables.as_array().into_iter().flatten();
        let entries = entries.flat_map(|table| table["mdb"].as_array().into_iter().flatten());
        entries
            .map(|entry| {
                let text = |field: &str| entry[field].as_str().unwrap_or_default();
                let group = text("grp");
                Ok(Delivery {
                    port: text("port").to_owned(),
                    group: group.parse().with_context(|| format!("group {group:?}"))?,
                    source: text("src").parse().ok(),
                })
            })
            .collect()
    }

    /// The group addresses that `link` receives, whoever wants them: `/proc/net/dev_mcast`.
    pub fn received_macs(&self, link: &str) -> Result<BTreeSet<[u8; 6]>> {
        let mut macs = BTreeSet::new();
        for line in self.proc_net("dev_mcast")?.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let [_, name, _, _, mac] = words[..] else {
                anyhow::bail!("a strange line: {line}");
            };
            if name == link {
                let mac = u64::from_str_radix(mac, 16).context("a strange address")?;
                let [_, _, mac @ ..] = mac.to_be_bytes();
                macs.insert(mac);
            }
        }
        Ok(macs)
    }

    /// Whether `link` receives the frames of `group`, as far as their address tells.
    pub fn receives(&self, link: &str, group: IpAddr) -> Result<bool> {
        Ok(self.received_macs(link)?.contains(&crate::group_mac(group)))
    }
}

//! A circle for frames to go around in.

use std::time::Duration;

use anyhow::Result;

use crate::{Capture, Netns};

/// How long links may take to be up on a slow machine.
const WAIT: Duration = Duration::from_secs(20);

/// Two segments `a` and `b`, two hosts between them by links `sa` and `sb`, and a
/// station `end` on each segment:
///
/// ```text
/// end ── a ──sa one sb── b ── end
///        └───sa two sb───┘
/// ```
#[derive(Debug)]
pub struct Circle {
    /// One of the hosts between the segments.
    pub one: Netns,
    /// The other one.
    pub two: Netns,
    /// The stations on `a` and `b`, each with a link `end`.
    pub ends: [Netns; 2],
    segments: [Netns; 2],
}

impl Circle {
    /// Makes it, with all links up.
    pub fn new() -> Result<Self> {
        let circle = Self {
            one: Netns::new("one")?,
            two: Netns::new("two")?,
            ends: [Netns::new("end of a")?, Netns::new("end of b")?],
            segments: [Netns::new("a")?, Netns::new("b")?],
        };
        for (name, (segment, end)) in ["sa", "sb"]
            .iter()
            .zip(circle.segments.iter().zip(&circle.ends))
        {
            segment
                .ip("link add bridge type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
            segment.ip("link set bridge up")?;
            for (port, netns) in [("one", &circle.one), ("two", &circle.two)] {
                segment.veth_to(netns, port, name)?;
            }
            segment.veth_to(end, "end", "end")?;
            for port in ["one", "two", "end"] {
                segment.ip(&format!("link set {port} master bridge"))?;
            }
            segment.wait_running(&["bridge", "one", "two", "end"], WAIT)?;
            end.wait_running(&["end"], WAIT)?;
        }
        for (number, netns) in [&circle.one, &circle.two].into_iter().enumerate() {
            // Not left to chance, as what is told apart by its address may be alike, if seldom.
            for link in ["sa", "sb"] {
                let last = link.as_bytes()[1];
                netns.ip(&format!(
                    "link set {link} address 02:00:00:00:{number:02x}:{last:02x}"
                ))?;
            }
            netns.wait_running(&["sa", "sb"], WAIT)?;
        }
        Ok(circle)
    }

    /// Captures at the ends of `a` and `b`.
    pub fn captures(&self) -> Result<[Capture; 2]> {
        Ok([
            Capture::on(&self.ends[0], "end")?,
            Capture::on(&self.ends[1], "end")?,
        ])
    }
}

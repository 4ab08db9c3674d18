//! Frames with labels, and where their copies arrive.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::{Capture, Captured, Inject, Topology, UdpFrame, socket};

/// Long enough for any machine.
const WAIT: Duration = Duration::from_secs(20);
/// Where the last frame of all goes, which every egress gets.
const END: &str = "239.255.255.254:65000";

/// Sends frames that carry a label into the ingress of a topology, and knows behind which egress
/// each of their copies must arrive.
#[derive(Debug)]
pub struct Labelled {
    inject: Inject,
    captures: Vec<Capture>,
    expected: Vec<Vec<String>>,
}

impl Labelled {
    /// The relay that this needs beside those that are tested.
    #[must_use]
    pub fn relay(topology: &Topology) -> String {
        format!(
            "{{name: end, from: {}, to: [{}], groups: 239.255.255.254, ports: 65000}}",
            topology.ingress,
            topology.egresses.join(", ")
        )
    }

    /// Begins to watch the links of the receiver.
    pub fn on(topology: &Topology) -> Result<Self> {
        let links = topology.receiver_links.iter();
        let captures = links.map(|link| Capture::on(&topology.receiver, link));
        Ok(Self {
            inject: Inject::on(&topology.sender, Topology::SENDER_LINK)?,
            captures: captures.collect::<Result<_>>()?,
            expected: vec![Vec::new(); topology.receiver_links.len()],
        })
    }

    /// The payload that says so.
    #[must_use]
    pub fn payload(label: &str) -> Vec<u8> {
        format!("<{label}>").into_bytes()
    }

    /// Sends a frame that ends with the payload of this label. Its copies must arrive behind these
    /// egresses, which may be named twice.
    pub fn send(&mut self, frame: &[u8], label: &str, egresses: &[usize]) -> Result<()> {
        ensure!(
            frame.ends_with(&Self::payload(label)),
            "the frame has no label {label}"
        );
        for egress in egresses {
            self.expected[*egress].push(label.to_owned());
        }
        self.inject
            .send(frame)
            .with_context(|| format!("the frame with label {label}"))
    }

    /// As [`Self::send`], with a datagram.
    pub fn datagram(
        &mut self,
        source: &str,
        group: &str,
        label: &str,
        egresses: &[usize],
    ) -> Result<()> {
        let frame = UdpFrame::new(socket(source)?, socket(group)?);
        let frame = frame.ttl(9).payload(Self::payload(label)).build()?;
        self.send(&frame, label, egresses)
    }

    /// Waits for all copies that were expected, and fails if others came. Gives those of each
    /// egress, in the order in which they came.
    pub fn finish(mut self) -> Result<Vec<Vec<Captured>>> {
        for (egress, capture) in self.captures.iter().enumerate() {
            let expected = &self.expected[egress];
            let seen = capture.wait_for(expected.len(), WAIT, is_copy);
            if let Err(error) = seen {
                let seen: Vec<_> = capture.frames()?.iter().filter_map(label).collect();
                return Err(
                    error.context(format!("egress {egress}: {seen:?} instead of {expected:?}"))
                );
            }
        }
        let end = UdpFrame::new(socket("10.77.0.2:40000")?, socket(END)?);
        self.inject.send(&end.payload("<end>").build()?)?;
        let mut all = Vec::new();
        for (egress, capture) in self.captures.iter().enumerate() {
            let is_end = |frame: &Captured| label(frame).as_deref() == Some("end");
            capture.wait_for(1, WAIT, is_end)?;
            let mut copies = capture.frames()?;
            copies.retain(|frame| is_copy(frame) && !is_end(frame));
            let mut seen: Vec<_> = copies.iter().filter_map(label).collect();
            let mut expected = self.expected[egress].clone();
            seen.sort();
            expected.sort();
            ensure!(
                seen == expected,
                "egress {egress}: {seen:?} instead of {expected:?}"
            );
            all.push(copies);
        }
        Ok(all)
    }
}

/// Whether a frame arrived that was made by mcr.
fn is_copy(frame: &Captured) -> bool {
    frame.is_relayed() && label(frame).is_some()
}

/// The label of a frame.
fn label(frame: &Captured) -> Option<String> {
    let from = frame.bytes.iter().rposition(|byte| *byte == b'<')?;
    let label = frame.bytes[from + 1..].strip_suffix(b">")?;
    String::from_utf8(label.to_vec()).ok()
}

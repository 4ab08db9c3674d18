//! Raw frames out of a link.

use std::io::Write as _;

use afpacket::sync::RawPacketStream;
use anyhow::{Context, Result, ensure};

use crate::Netns;

/// Sends frames as they are out of one link.
#[derive(Debug)]
pub struct Inject {
    socket: RawPacketStream,
    link: String,
}

impl Inject {
    /// Opens a packet socket on `link` of `netns`.
    pub fn on(netns: &Netns, link: &str) -> Result<Self> {
        netns.run(|| {
            let mut socket = RawPacketStream::new().context("cannot open a packet socket")?;
            socket
                .bind(link)
                .with_context(|| format!("cannot bind a packet socket to {link}"))?;
            Ok(Self {
                socket,
                link: link.to_owned(),
            })
        })
    }

    /// Sends one frame, which begins with its destination MAC address.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        let sent = self
            .socket
            .write(frame)
            .with_context(|| format!("cannot send a frame out of {}", self.link))?;
        ensure!(
            sent == frame.len(),
            "{} took only a part of a frame",
            self.link
        );
        Ok(())
    }
}

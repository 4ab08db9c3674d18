//! A tap: a link whose wire is this process.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::Netns;

/// Larger than any frame.
const LARGEST: usize = 1 << 17;

/// A link that exists as long as this value: what is sent out of it is read here, and what is
/// written here arrives on it.
#[derive(Debug)]
pub struct Tap(File);

impl Tap {
    /// Makes the link `name` in `netns`, which is up.
    pub fn new(netns: &Netns, name: &str) -> Result<Self> {
        let tap = netns.run(|| {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open("/dev/net/tun")
                .context("cannot open /dev/net/tun")?;
            make(&file, name)?;
            Ok(Self(file))
        })?;
        netns.ip(&format!("link set {name} up"))?;
        Ok(tap)
    }

    /// A frame arrives on the link.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        let written = self.0.write(frame).context("cannot write to a tap")?;
        ensure!(written == frame.len(), "a tap took only a part of a frame");
        Ok(())
    }

    /// Takes frames that were sent out of the link until `wanted` has taken `count` of them, and
    /// gives those; an error tells how many there were.
    pub fn take(
        &mut self,
        count: usize,
        timeout: Duration,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<Vec<u8>>> {
        let deadline = Instant::now() + timeout;
        let mut taken = Vec::new();
        let mut buffer = vec![0; LARGEST];
        while taken.len() < count {
            match self.0.read(&mut buffer) {
                Ok(length) if wanted(&buffer[..length]) => taken.push(buffer[..length].to_vec()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        bail!("{} of {count} frames within {timeout:?}", taken.len());
                    }
                    self.wait(left)?;
                }
                Err(error) => return Err(error).context("cannot read from a tap"),
            }
        }
        Ok(taken)
    }

    fn wait(&self, time: Duration) -> Result<()> {
        let mut interest = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        match poll(&mut interest, time) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("cannot wait for a tap"),
        }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes the link of an open `/dev/net/tun` (`Documentation/networking/tuntap.rst`): frames with
/// their Ethernet header, and nothing in front of it.
#[expect(unsafe_code, reason = "no crate here makes taps")]
fn make(file: &File, name: &str) -> Result<()> {
    let flags = libc::IFF_TAP | libc::IFF_NO_PI;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: libc::c_short::try_from(flags).context("flags are too large")?,
        },
    };
    ensure!(name.len() < libc::IFNAMSIZ, "{name} is too long a name");
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    // SAFETY: the request is the structure that TUNSETIFF takes, and outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    Errno::result(result)
        .map(drop)
        .with_context(|| format!("cannot make the tap {name}"))
}

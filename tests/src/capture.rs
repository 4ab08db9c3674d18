//! Frames seen on a link, with what the kernel knows about them.

use std::io::IoSliceMut;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use afpacket::sync::RawPacketStream;
use anyhow::{Context, Result, bail};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt, sockopt::RcvBufForce,
};
use nix::unistd::{pipe2, read};

use crate::{Netns, UdpView};

/// Room for 100 000 frames of any usual size, so that a capture loses none while it is not
/// scheduled.
const BUFFER: usize = 256 << 20;

/// Larger than any frame, those with unfinished segmentation included.
const LARGEST: usize = 1 << 17;

/// `PACKET_AUXDATA` of packet(7): a `tpacket_auxdata` comes with every frame.
const PACKET_AUXDATA: libc::c_int = 8;

/// Whom a frame was for, as the kernel saw it (packet(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketType {
    /// For this host.
    Host,
    /// To the broadcast address.
    Broadcast,
    /// To a multicast address.
    Multicast,
    /// For another host.
    OtherHost,
    /// Sent by this host.
    Outgoing,
    /// A type these tests do not know.
    Other(u8),
}

/// A VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTag {
    /// The tag protocol: 0x8100 or 0x88a8.
    pub tpid: u16,
    /// Priority, drop eligibility and VLAN id.
    pub tci: u16,
}

impl VlanTag {
    /// A tag of priority 0.
    #[must_use]
    pub fn new(tpid: u16, vid: u16) -> Self {
        Self {
            tpid,
            tci: vid & 0xfff,
        }
    }

    /// The VLAN id.
    #[must_use]
    pub fn vid(self) -> u16 {
        self.tci & 0xfff
    }
}

/// A frame that was seen.
#[derive(Clone, Debug)]
pub struct Captured {
    /// The bytes, without the tag the kernel took out.
    pub bytes: Vec<u8>,
    /// Whom it was for.
    pub packet_type: PacketType,
    /// The tag the kernel keeps beside the frame.
    pub vlan: Option<VlanTag>,
    /// Whether its transport checksum is left to hardware, and wrong in the bytes.
    pub checksum_pending: bool,
}

impl Captured {
    /// The UDP datagram in it.
    #[must_use]
    pub fn udp(&self) -> Option<UdpView> {
        UdpView::read(&self.bytes)
    }

    /// Whether it is a copy with `source_mac: relay`: no other frame has such an address.
    #[must_use]
    pub fn is_relayed(&self) -> bool {
        self.bytes.get(6..10) == Some(&[0x02, 0x6d, 0x63, 0x72])
    }
}

/// Collects every frame that enters or leaves a link, from its start until it is dropped.
#[derive(Debug)]
pub struct Capture {
    link: String,
    socket: Arc<RawPacketStream>,
    seen: Arc<Seen>,
    /// Closing it ends the thread.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Seen {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    frames: Vec<Captured>,
    failed: Option<String>,
}

impl Capture {
    /// Begins on `link` of `netns`. What passes after this has returned is seen.
    pub fn on(netns: &Netns, link: &str) -> Result<Self> {
        let (socket, index) = netns.run(|| open(link))?;
        let socket = Arc::new(socket);
        let (watch, stop) =
            pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("cannot make a pipe to stop by")?;
        let seen = Arc::new(Seen::default());
        let thread = thread::spawn({
            let (socket, seen) = (Arc::clone(&socket), Arc::clone(&seen));
            move || {
                if let Err(error) = collect(&socket, index, &watch, &seen) {
                    seen.lock().failed = Some(format!("{error:#}"));
                    seen.changed.notify_all();
                }
            }
        });
        Ok(Self {
            link: link.to_owned(),
            socket,
            seen,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// All frames so far.
    pub fn frames(&self) -> Result<Vec<Captured>> {
        self.check()?;
        Ok(self.seen.lock().frames.clone())
    }

    /// Waits for `count` frames `wanted` takes, among those seen and those to come, and gives all
    /// it has taken by then. An error tells how many there were.
    pub fn wait_for(
        &self,
        count: usize,
        timeout: Duration,
        wanted: impl Fn(&Captured) -> bool,
    ) -> Result<Vec<Captured>> {
        let deadline = Instant::now() + timeout;
        let mut found = Vec::new();
        let mut looked_at = 0;
        let mut state = self.seen.lock();
        loop {
            let new = state.frames[looked_at..].iter();
            found.extend(new.filter(|frame| wanted(frame)).cloned());
            looked_at = state.frames.len();
            if found.len() >= count {
                drop(state);
                self.check()?;
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.failed.is_some() {
                drop(state);
                self.check()?;
                bail!(
                    "{} of {count} frames seen on {} within {timeout:?}, and {} others",
                    found.len(),
                    self.link,
                    looked_at - found.len()
                );
            }
            let slept = self.seen.changed.wait_timeout(state, left);
            state = slept.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Fails if the capture is not complete: the kernel had no room, or the socket failed.
    fn check(&self) -> Result<()> {
        if let Some(failed) = &self.seen.lock().failed {
            bail!("the capture on {} failed: {failed}", self.link);
        }
        let lost = lost(&self.socket)?;
        if lost > 0 {
            let failed = format!("{lost} frames found no room in its buffer");
            self.seen.lock().failed = Some(failed.clone());
            bail!("the capture on {} failed: {failed}", self.link);
        }
        Ok(())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It fails only if it has panicked, which was printed.
            let _ = thread.join();
        }
    }
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A packet socket bound to `link` of the namespace of the calling thread, and the link's index.
fn open(link: &str) -> Result<(RawPacketStream, usize)> {
    let mut socket = RawPacketStream::new().context("cannot open a packet socket")?;
    socket
        .bind(link)
        .with_context(|| format!("cannot bind a packet socket to {link}"))?;
    let index =
        nix::net::if_::if_nametoindex(link).with_context(|| format!("there is no link {link}"))?;
    let descriptor = borrow(&socket);
    setsockopt(&descriptor, RcvBufForce, &BUFFER).context("cannot enlarge a socket buffer")?;
    want_auxdata(descriptor)?;
    Ok((
        socket,
        usize::try_from(index).context("an interface index is too large")?,
    ))
}

/// Takes frames off the socket until `stop` is closed.
fn collect(socket: &RawPacketStream, index: usize, stop: &OwnedFd, seen: &Seen) -> Result<()> {
    let mut buffer = vec![0; LARGEST];
    loop {
        let mut interest = [
            PollFd::new(borrow(socket), PollFlags::POLLIN),
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut interest, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error).context("cannot wait for frames"),
        }
        while let Some((frame, from)) = receive(socket, &mut buffer)? {
            // Before it was bound, the socket saw all links.
            if from == index {
                seen.lock().frames.push(frame);
                seen.changed.notify_all();
            }
        }
        if interest[1].any().unwrap_or(false) {
            // Nothing is ever written: readable means closed.
            return read(stop.as_fd(), &mut [0; 1])
                .map(drop)
                .context("cannot stop");
        }
    }
}

/// The next frame and the index of the link it was seen on; `None` if there is none now.
fn receive(socket: &RawPacketStream, buffer: &mut [u8]) -> Result<Option<(Captured, usize)>> {
    let mut control = cmsg_space!(libc::tpacket_auxdata);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message =
        match recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Ok(message) => message,
            // A link that goes down is told once; when it comes up again, frames are seen again.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => return Ok(None),
            Err(error) => return Err(error).context("cannot receive frames"),
        };
    let from = message.address.context("a frame without its link")?;
    let mut vlan = None;
    let mut checksum_pending = false;
    for control in message
        .cmsgs()
        .context("a frame's control data is cut off")?
    {
        if let ControlMessageOwned::Unknown(data) = control
            && data.cmsg_header.cmsg_level == libc::SOL_PACKET
            && data.cmsg_header.cmsg_type == PACKET_AUXDATA
        {
            (vlan, checksum_pending) = auxdata(&data.data_bytes)?;
        }
    }
    let packet_type = packet_type(from.pkttype());
    let length = message.bytes;
    let index = from.ifindex();
    let frame = Captured {
        bytes: buffer[..length].to_vec(),
        packet_type,
        vlan,
        checksum_pending,
    };
    Ok(Some((frame, index)))
}

fn packet_type(number: u8) -> PacketType {
    match number {
        libc::PACKET_HOST => PacketType::Host,
        libc::PACKET_BROADCAST => PacketType::Broadcast,
        libc::PACKET_MULTICAST => PacketType::Multicast,
        libc::PACKET_OTHERHOST => PacketType::OtherHost,
        libc::PACKET_OUTGOING => PacketType::Outgoing,
        other => PacketType::Other(other),
    }
}

/// Tag and pending checksum out of a `tpacket_auxdata`.
fn auxdata(bytes: &[u8]) -> Result<(Option<VlanTag>, bool)> {
    type Aux = libc::tpacket_auxdata;
    let short = "a frame's auxiliary data is cut off";
    let field = |at: usize| bytes.get(at..)?.first_chunk::<2>().copied();
    let status = bytes.get(offset_of!(Aux, tp_status)..);
    let status = status.and_then(|b| b.first_chunk::<4>()).context(short)?;
    let status = u32::from_ne_bytes(*status);
    let tci = u16::from_ne_bytes(field(offset_of!(Aux, tp_vlan_tci)).context(short)?);
    let tpid = u16::from_ne_bytes(field(offset_of!(Aux, tp_vlan_tpid)).context(short)?);
    let vlan = (status & libc::TP_STATUS_VLAN_VALID != 0).then_some(VlanTag { tpid, tci });
    Ok((vlan, status & libc::TP_STATUS_CSUMNOTREADY != 0))
}

#[expect(unsafe_code, reason = "afpacket gives its descriptor as a number")]
fn borrow(socket: &RawPacketStream) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as `socket` lives, which the lifetime says.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

#[expect(unsafe_code, reason = "no crate here knows PACKET_AUXDATA")]
fn want_auxdata(socket: BorrowedFd<'_>) -> Result<()> {
    let on: libc::c_int = 1;
    let length = u32::try_from(size_of::<libc::c_int>()).context("an int is too large")?;
    // SAFETY: `on` outlives the call, and `length` is its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_AUXDATA,
            (&raw const on).cast(),
            length,
        )
    };
    Errno::result(result)
        .map(drop)
        .context("cannot ask for tags")
}

/// How many frames found no room since this was asked last.
#[expect(unsafe_code, reason = "no crate here knows PACKET_STATISTICS")]
fn lost(socket: &RawPacketStream) -> Result<u32> {
    let mut statistics = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let size = size_of::<libc::tpacket_stats>();
    let mut length = u32::try_from(size).context("statistics are too large")?;
    // SAFETY: both pointers are to values that outlive the call, and `length` is the size of the
    // first; the kernel writes no more than that.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    Errno::result(result).context("cannot read a capture's statistics")?;
    Ok(statistics.tp_drops)
}

//! Plain UDP sockets, as programs that know nothing of a relay use them.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{setsockopt, sockopt};

use crate::Netns;

/// Room for what a test sends while its receiver is not scheduled.
const BUFFER: usize = 64 << 20;

/// A socket that is bound to an address and port: usually to a group it has joined on a link.
#[derive(Debug)]
pub struct Member(UdpSocket);

impl Member {
    /// Joins `group` on `link` of `netns`.
    pub fn join(netns: &Netns, link: &str, group: SocketAddr) -> Result<Self> {
        let socket = netns.run(|| {
            let index = if_nametoindex(link).with_context(|| format!("there is no {link}"))?;
            let mut bound = group;
            if let SocketAddr::V6(bound) = &mut bound {
                // A group of one link needs the link (RFC 4007, section 6).
                bound.set_scope_id(index);
            }
            let socket = UdpSocket::bind(bound).with_context(|| format!("cannot bind {bound}"))?;
            match group.ip() {
                IpAddr::V4(group) => {
                    let index = i32::try_from(index).context("an index is too large")?;
                    let request = libc::ip_mreqn {
                        imr_multiaddr: libc::in_addr {
                            s_addr: u32::from(group).to_be(),
                        },
                        imr_address: libc::in_addr { s_addr: 0 },
                        imr_ifindex: index,
                    };
                    join_v4(&socket, &request)?;
                }
                IpAddr::V6(group) => socket
                    .join_multicast_v6(&group, index)
                    .with_context(|| format!("cannot join {group}"))?,
            }
            setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)
                .context("cannot enlarge a socket buffer")?;
            Ok(socket)
        })?;
        Ok(Self(socket))
    }

    /// Is bound to an address of `netns` and has joined nothing.
    pub fn at(netns: &Netns, address: SocketAddr) -> Result<Self> {
        netns.run(|| {
            let socket =
                UdpSocket::bind(address).with_context(|| format!("cannot bind {address}"))?;
            setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)
                .context("cannot enlarge a socket buffer")?;
            Ok(Self(socket))
        })
    }

    /// Takes datagrams until there are `count`; an error tells how many there were.
    pub fn take(&self, count: usize, timeout: Duration) -> Result<Vec<(Vec<u8>, SocketAddr)>> {
        let deadline = Instant::now() + timeout;
        let mut taken = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while taken.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{} of {count} datagrams within {timeout:?}", taken.len());
            }
            self.0
                .set_read_timeout(Some(left))
                .context("cannot set a timeout")?;
            match self.0.recv_from(&mut buffer) {
                Ok((length, from)) => taken.push((buffer[..length].to_vec(), from)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("cannot receive"),
            }
        }
        Ok(taken)
    }

    /// How many datagrams wait now.
    pub fn waiting(&self) -> Result<usize> {
        self.0
            .set_nonblocking(true)
            .context("cannot stop blocking")?;
        let mut count = 0;
        let mut buffer = vec![0; 1 << 16];
        let result = loop {
            match self.0.recv_from(&mut buffer) {
                Ok(_) => count += 1,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break Ok(count),
                Err(error) => break Err(error).context("cannot receive"),
            }
        };
        self.0
            .set_nonblocking(false)
            .context("cannot block again")?;
        result
    }
}

/// A socket whose datagrams leave by `link`, with this TTL or hop limit.
pub fn udp_sender(netns: &Netns, link: &str, source: IpAddr, ttl: u8) -> Result<UdpSocket> {
    netns.run(|| {
        let socket = UdpSocket::bind((source, 0)).context("cannot bind a sender")?;
        setsockopt(&socket, sockopt::BindToDevice, &link.into())
            .with_context(|| format!("cannot bind to {link}"))?;
        match source {
            IpAddr::V4(_) => socket
                .set_multicast_ttl_v4(ttl.into())
                .context("cannot set the TTL")?,
            IpAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6MulticastHops, &ttl.into())
                .context("cannot set the hop limit")?,
        }
        Ok(socket)
    })
}

#[expect(unsafe_code, reason = "nix joins by address only, not by link")]
fn join_v4(socket: &UdpSocket, request: &libc::ip_mreqn) -> Result<()> {
    use std::os::fd::AsRawFd as _;
    let length = u32::try_from(size_of::<libc::ip_mreqn>()).context("a request is too large")?;
    // SAFETY: `request` outlives the call, and `length` is its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_ADD_MEMBERSHIP,
            std::ptr::from_ref(request).cast(),
            length,
        )
    };
    nix::errno::Errno::result(result)
        .map(drop)
        .context("cannot join a group")
}

//! The sockets of sender and receiver, opened so that the interface is chosen by index and never
//! by a route.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::error::Error;
use super::group::Group;
use super::join;
use super::link::Link;

/// What is asked for as receive buffer: 16 MiB hold 20 000 small datagrams, as each is charged with
/// its whole buffer (about 800 bytes). Without the privilege to exceed it, `net.core.rmem_max`
/// limits it.
const RECEIVE_BUFFER: usize = 16 << 20;
/// Several of the largest datagrams.
const SEND_BUFFER: usize = 1 << 20;

fn open(address: IpAddr) -> Result<Socket, Error> {
    let socket = Socket::new(domain(address), Type::DGRAM, Some(Protocol::UDP))
        .map_err(Error::os("open a UDP socket"))?;
    socket
        .set_nonblocking(true)
        .map_err(Error::os("make a socket non-blocking"))?;
    if address.is_ipv6() {
        socket
            .set_only_v6(true)
            .map_err(Error::os("limit a socket to IPv6"))?;
    }
    Ok(socket)
}

fn domain(address: IpAddr) -> Domain {
    if address.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    }
}

/// A local address of the family of `like`, on any port.
fn local(source: Option<IpAddr>, like: IpAddr, index: u32) -> SocketAddr {
    match (source, like) {
        (Some(IpAddr::V6(address)), _) => {
            let scope = if address.is_unicast_link_local() {
                index
            } else {
                0
            };
            SocketAddrV6::new(address, 0, 0, scope).into()
        }
        (Some(IpAddr::V4(address)), _) => SocketAddrV4::new(address, 0).into(),
        (None, IpAddr::V4(_)) => SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0).into(),
        (None, IpAddr::V6(_)) => SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0).into(),
    }
}

/// A socket that sends to the group from `link`, with `ttl` as TTL or hop limit.
pub(super) fn sender(
    group: &Group,
    link: Option<&Link>,
    source: Option<IpAddr>,
    ttl: u8,
) -> Result<UdpSocket, Error> {
    let socket = open(group.address())?;
    let index = link.map_or(0, |link| link.index);
    socket
        .bind(&local(source, group.address(), index).into())
        .map_err(
            |error| match (error.raw_os_error().map(Errno::from_raw), source) {
                (Some(Errno::EADDRNOTAVAIL | Errno::EINVAL), Some(source)) => {
                    Error::NotLocal(source)
                }
                _ => Error::os("bind the sending socket")(error),
            },
        )?;
    let ttl_failed = Error::os(format!("set the TTL to {ttl}"));
    match group.address() {
        IpAddr::V4(_) => {
            socket
                .set_multicast_ttl_v4(u32::from(ttl))
                .map_err(ttl_failed)?;
            socket.set_multicast_loop_v4(true)
        }
        IpAddr::V6(_) => {
            socket
                .set_multicast_hops_v6(u32::from(ttl))
                .map_err(ttl_failed)?;
            socket.set_multicast_loop_v6(true)
        }
    }
    .map_err(Error::os("let receivers on this host see what is sent"))?;
    if let Some(link) = link {
        send_from(&socket, group.address(), link.index)
            .map_err(Error::os(format!("send from `{}`", link.name)))?;
    }
    // A smaller buffer only means that the sender waits more often.
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    Ok(socket.into())
}

fn send_from(socket: &Socket, group: IpAddr, index: u32) -> io::Result<()> {
    match group {
        IpAddr::V4(_) => {
            let request = libc::ip_mreqn {
                imr_multiaddr: libc::in_addr { s_addr: 0 },
                imr_address: libc::in_addr { s_addr: 0 },
                imr_ifindex: index.cast_signed(),
            };
            set(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &request)
        }
        IpAddr::V6(_) => socket.set_multicast_if_v6(index),
    }
}

/// A socket that has joined the group on `link`, from every source or from one (RFC 4607), and
/// sees nothing else.
pub(super) fn receiver(
    group: &Group,
    link: &Link,
    source: Option<IpAddr>,
) -> Result<UdpSocket, Error> {
    let socket = open(group.address())?;
    socket
        .set_reuse_address(true)
        .map_err(Error::os("share the port with other receivers"))?;
    let only_joined = Error::os("limit a socket to what it joined");
    match group.address() {
        IpAddr::V4(_) => socket.set_multicast_all_v4(false).map_err(only_joined)?,
        IpAddr::V6(_) => {
            socket.set_multicast_all_v6(false).map_err(only_joined)?;
            // For IPv4 the kernel compares the interface of the join (ip_mc_sf_allow); for IPv6
            // it does not (inet6_mc_check), so the socket is bound to it.
            socket
                .bind_device_by_index_v6(NonZeroU32::new(link.index))
                .map_err(Error::os(format!("bind a socket to `{}`", link.name)))?;
        }
    }
    socket
        .bind(&group.socket_address(link.index).into())
        .map_err(Error::os(format!("bind to {group}")))?;
    enlarge_receive_buffer(&socket);
    join::join(&socket, link.index, group.address(), source).map_err(|error| {
        let what = match source {
            Some(source) => format!("join {group} from {source} on `{}`", link.name),
            None => format!("join {group} on `{}`", link.name),
        };
        Error::os(what)(error)
    })?;
    Ok(socket.into())
}

/// A socket to answer senders with: not that of the group, as an answer goes where the routes say.
pub(super) fn answerer(group: &Group) -> Result<UdpSocket, Error> {
    let socket = open(group.address())?;
    socket
        .bind(&local(None, group.address(), 0).into())
        .map_err(Error::os("bind the answering socket"))?;
    Ok(socket.into())
}

fn enlarge_receive_buffer(socket: &Socket) {
    if setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        // What the limit of the host allows is better than nothing, and drops are reported.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    }
}

/// The datagrams the kernel dropped at this socket since it was opened, mostly because its buffer
/// was full (`SO_MEMINFO`, Linux 4.12; the number `SO_RXQ_OVFL` reports with each datagram, but
/// known without one).
pub(super) fn drops(socket: &UdpSocket) -> io::Result<u64> {
    const WORDS: usize = libc::SK_MEMINFO_DROPS as usize + 1;
    let mut words = [0_u32; WORDS];
    let mut len = libc::socklen_t::try_from(size_of_val(&words)).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "neither nix nor socket2 has SO_MEMINFO")]
    // SAFETY: `words` is writable for `len` bytes, the kernel writes at most that many, and every
    // bit pattern is a valid u32.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            words.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    Errno::result(result)?;
    Ok(u64::from(words[WORDS - 1]))
}

/// The bytes of receive buffer the kernel granted.
pub(super) fn receive_buffer(socket: &UdpSocket) -> io::Result<usize> {
    SockRef::from(socket).recv_buffer_size()
}

/// The address the kernel sends to the group from, if it can tell.
pub(super) fn source_towards(
    group: &Group,
    link: Option<&Link>,
    source: Option<IpAddr>,
) -> Option<IpAddr> {
    let probe = sender(group, link, source, 1).ok()?;
    probe
        .connect(group.socket_address(link.map_or(0, |link| link.index)))
        .ok()?;
    probe.local_addr().ok().map(|address| address.ip())
}

fn set<T>(socket: &Socket, level: i32, name: i32, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    #[expect(
        unsafe_code,
        reason = "neither nix nor socket2 sets these options by index"
    )]
    // SAFETY: `value` is readable for `len` bytes, which is its size, during the call, and the
    // kernel keeps no pointer to it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            len,
        )
    };
    Errno::result(result)?;
    Ok(())
}

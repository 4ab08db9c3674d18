//! Memberships of sockets (RFC 3678 section 5), which take the link by its index for both
//! address families.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
};

use nix::errno::Errno;

use crate::plan::Join;

/// Makes the socket a member.
///
/// # Errors
///
/// Those of `setsockopt`. `ENOBUFS`: the socket has no room for another group
/// (`net.ipv4.igmp_max_memberships`) or source (`net.ipv4.igmp_max_msf`,
/// `net.ipv6.mld_max_msf`); `ENODEV`: there is no such link, or it has no IPv6.
pub fn join(socket: &impl AsRawFd, join: &Join) -> io::Result<()> {
    change(
        socket,
        join,
        libc::MCAST_JOIN_GROUP,
        libc::MCAST_JOIN_SOURCE_GROUP,
    )
}

/// Ends a membership.
///
/// # Errors
///
/// Those of `setsockopt`. `ENODEV` or `EADDRNOTAVAIL`: the link is gone, and the membership
/// with it.
pub fn leave(socket: &impl AsRawFd, join: &Join) -> io::Result<()> {
    change(
        socket,
        join,
        libc::MCAST_LEAVE_GROUP,
        libc::MCAST_LEAVE_SOURCE_GROUP,
    )
}

fn change(socket: &impl AsRawFd, join: &Join, any: i32, from_source: i32) -> io::Result<()> {
    let level = match join.group {
        IpAddr::V4(_) => libc::IPPROTO_IP,
        IpAddr::V6(_) => libc::IPPROTO_IPV6,
    };
    match join.source {
        None => {
            let request = libc::group_req {
                gr_interface: join.ifindex,
                gr_group: storage(join.group),
            };
            set(socket, level, any, &request)
        }
        Some(source) => {
            let request = libc::group_source_req {
                gsr_interface: join.ifindex,
                gsr_group: storage(join.group),
                gsr_source: storage(source),
            };
            set(socket, level, from_source, &request)
        }
    }
}

fn storage(address: IpAddr) -> libc::sockaddr_storage {
    let mut storage = socket2::SockAddr::from(SocketAddr::new(address, 0)).as_storage();
    #[expect(unsafe_code, reason = "socket2 gives its storage away in no other way")]
    // SAFETY: `sockaddr_storage` is one of the platform's address types and as large as the
    // storage, which is what `view_as` asks for.
    unsafe {
        *storage.view_as::<libc::sockaddr_storage>()
    }
}

fn set<T>(socket: &impl AsRawFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "neither nix nor socket2 has these options")]
    // SAFETY: `value` is readable for `length` bytes, which is its size, during the call, and
    // the kernel keeps no pointer to it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            length,
        )
    };
    Errno::result(result)?;
    Ok(())
}

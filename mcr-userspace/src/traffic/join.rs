//! Memberships of sockets (RFC 3678 section 5), which take the link by its index for both
//! address families.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
};

use nix::errno::Errno;

/// Makes the socket a member of a group on a link, from one source or from any.
///
/// # Errors
///
/// Those of `setsockopt`. `ENOBUFS`: the socket has no room for another group
/// (`net.ipv4.igmp_max_memberships`); `ENODEV`: there is no such link, or it has no IPv6.
pub(super) fn join(
    socket: &impl AsRawFd,
    ifindex: u32,
    group: IpAddr,
    source: Option<IpAddr>,
) -> io::Result<()> {
    let level = match group {
        IpAddr::V4(_) => libc::IPPROTO_IP,
        IpAddr::V6(_) => libc::IPPROTO_IPV6,
    };
    match source {
        None => {
            let request = libc::group_req {
                gr_interface: ifindex,
                gr_group: storage(group),
            };
            set(socket, level, libc::MCAST_JOIN_GROUP, &request)
        }
        Some(source) => {
            let request = libc::group_source_req {
                gsr_interface: ifindex,
                gsr_group: storage(group),
                gsr_source: storage(source),
            };
            set(socket, level, libc::MCAST_JOIN_SOURCE_GROUP, &request)
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

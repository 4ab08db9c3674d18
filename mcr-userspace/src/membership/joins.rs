//! The groups this host joins on the ingress links of relays.
//!
//! A kernel socket holds about 20 groups, so there are as many sockets as it takes. They are
//! bound to no port, so that no datagram is ever queued for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::kernel;
use crate::plan::Join;

/// Memberships of this host. They end when this value does.
#[derive(Debug, Default)]
pub struct Joins {
    sockets: BTreeMap<usize, Member>,
    held: BTreeMap<Join, usize>,
    next: usize,
}

/// A socket and how many memberships it holds.
#[derive(Debug)]
struct Member {
    socket: Socket,
    v6: bool,
    held: usize,
    full: bool,
}

/// A membership that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("can't join {}{} on link {}: {source}", .join.group, from(.join), .join.ifindex)]
pub struct JoinError {
    /// Which one.
    pub join: Join,
    /// What the kernel said.
    pub source: io::Error,
}

fn from(join: &Join) -> String {
    join.source
        .map(|source| format!(" from {source}"))
        .unwrap_or_default()
}

impl Joins {
    /// Joins and leaves until exactly the groups of `wanted` are joined, and returns what could
    /// not be joined. That is tried again the next time.
    pub fn follow(&mut self, wanted: &BTreeSet<Join>) -> Vec<JoinError> {
        let held = self.held.keys();
        let unwanted: Vec<Join> = held
            .filter(|join| !wanted.contains(join))
            .copied()
            .collect();
        for join in unwanted {
            self.leave(&join);
        }
        let mut errors = Vec::new();
        for join in wanted {
            if !self.held.contains_key(join)
                && let Err(source) = self.join(join)
            {
                errors.push(JoinError {
                    join: *join,
                    source,
                });
            }
        }
        errors
    }

    /// How many memberships are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn join(&mut self, join: &Join) -> io::Result<()> {
        let v6 = join.group.is_ipv6();
        let with_room = self
            .sockets
            .iter_mut()
            .find(|(_, member)| member.v6 == v6 && !member.full);
        if let Some((id, member)) = with_room {
            match kernel::join(&member.socket, join) {
                Err(error) if no_room(&error) && member.held > 0 => member.full = true,
                result => {
                    result?;
                    member.held += 1;
                    self.held.insert(*join, *id);
                    return Ok(());
                }
            }
        }
        let socket = open(join.group)?;
        kernel::join(&socket, join)?;
        let member = Member {
            socket,
            v6,
            held: 1,
            full: false,
        };
        self.sockets.insert(self.next, member);
        self.held.insert(*join, self.next);
        self.next += 1;
        Ok(())
    }

    fn leave(&mut self, join: &Join) {
        let Some(id) = self.held.remove(join) else {
            return;
        };
        let Some(member) = self.sockets.get_mut(&id) else {
            return;
        };
        // The one thing that can go wrong is that the link is gone already. Then the kernel has
        // forgotten a group, but the socket still holds the sources of one (`ip_mc_source` looks
        // for the link first), and would refuse them if the link came back with its index. To
        // leave the group works without the link.
        if kernel::leave(&member.socket, join).is_err() && join.source.is_some() {
            let group = Join {
                source: None,
                ..*join
            };
            let _ = kernel::leave(&member.socket, &group);
        }
        member.held -= 1;
        member.full = false;
        if member.held == 0 {
            self.sockets.remove(&id);
        }
    }
}

/// Whether the error means that the socket has no room, so that another one may.
fn no_room(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    // A socket that has a group from any source refuses one of its sources, and the other way
    // round (RFC 3678 section 4.1.3).
    matches!(
        code,
        Some(Errno::ENOBUFS | Errno::ENOMEM | Errno::EINVAL | Errno::EADDRINUSE)
    )
}

fn open(group: IpAddr) -> io::Result<Socket> {
    let domain = match group {
        IpAddr::V4(_) => Domain::IPV4,
        IpAddr::V6(_) => Domain::IPV6,
    };
    Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))
}

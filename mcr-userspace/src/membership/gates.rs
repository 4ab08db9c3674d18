//! What a link is to receive: it tells group addresses apart before anyone sees a frame.
//!
//! What is opened here goes no further than the first look of the host's IP stack, which is no
//! member of the group.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use libc::{c_int, packet_mreq};
use socket2::{Domain, Socket, Type};

use super::socket::set_option;

/// How many addresses one socket holds. The kernel walks through those of a socket to add one
/// (`packet_mc_add` in `net/packet/af_packet.c`): 10 000 take 2 s in one socket, 0.15 s in forty.
const A_SOCKET: usize = 256;

/// `PACKET_MR_MULTICAST` and `PACKET_MR_ALLMULTI` of packet(7), as wide as their field.
const MR_MULTICAST: u16 = 0;
const MR_ALLMULTI: u16 = 2;

/// A kind of frames that a link receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Gate {
    /// Frames to this group address. The kernel counts who wants them.
    Mac([u8; 6]),
    /// Frames to all group addresses.
    AllMulti,
}

/// What was opened on a link. It is closed with this value, or with the link.
#[derive(Debug)]
pub(super) struct Gates {
    ifindex: c_int,
    /// Sockets that receive nothing themselves, with how much each holds.
    sockets: BTreeMap<usize, (Socket, usize)>,
    /// Which socket holds what.
    open: BTreeMap<Gate, usize>,
    next: usize,
}

impl Gates {
    /// Nothing is opened yet.
    pub(super) fn new(ifindex: u32) -> io::Result<Self> {
        Ok(Self {
            ifindex: c_int::try_from(ifindex).map_err(io::Error::other)?,
            sockets: BTreeMap::new(),
            open: BTreeMap::new(),
            next: 0,
        })
    }

    /// Whether this is open.
    pub(super) fn contains(&self, gate: Gate) -> bool {
        self.open.contains_key(&gate)
    }

    /// Whether nothing is open.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Has the link receive such frames.
    ///
    /// # Errors
    ///
    /// `ENODEV`: the link is gone; `EPERM`: this needs `CAP_NET_RAW`.
    pub(super) fn open(&mut self, gate: Gate) -> io::Result<()> {
        if self.contains(gate) {
            return Ok(());
        }
        let id = self.with_room()?;
        let Some((socket, held)) = self.sockets.get_mut(&id) else {
            return Ok(());
        };
        let request = request(self.ifindex, gate);
        set_option(socket, libc::PACKET_ADD_MEMBERSHIP, &request)?;
        *held += 1;
        self.open.insert(gate, id);
        Ok(())
    }

    /// The number of a socket that can hold one more.
    fn with_room(&mut self) -> io::Result<usize> {
        let mut sockets = self.sockets.iter();
        if let Some((id, _)) = sockets.find(|(_, (_, held))| *held < A_SOCKET) {
            return Ok(*id);
        }
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        self.next += 1;
        self.sockets.insert(self.next, (socket, 0));
        Ok(self.next)
    }

    /// Closes all but these.
    pub(super) fn keep(&mut self, needed: &BTreeSet<Gate>) {
        let open = self.open.iter();
        let unneeded: Vec<_> = open
            .filter(|(gate, _)| !needed.contains(*gate))
            .map(|(gate, id)| (*gate, *id))
            .collect();
        for (gate, id) in unneeded {
            self.open.remove(&gate);
            let Some((socket, held)) = self.sockets.get_mut(&id) else {
                continue;
            };
            // If the link is gone, so is what was opened.
            let request = request(self.ifindex, gate);
            let _ = set_option(socket, libc::PACKET_DROP_MEMBERSHIP, &request);
            *held -= 1;
            if *held == 0 {
                self.sockets.remove(&id);
            }
        }
    }
}

fn request(ifindex: c_int, gate: Gate) -> packet_mreq {
    let mut request = packet_mreq {
        mr_ifindex: ifindex,
        mr_type: MR_ALLMULTI,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    if let Gate::Mac(mac) = gate {
        request.mr_type = MR_MULTICAST;
        request.mr_alen = 6;
        request.mr_address[..6].copy_from_slice(&mac);
    }
    request
}

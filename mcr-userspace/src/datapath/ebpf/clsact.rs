//! The qdisc clsact: added where there is none, and taken away when nobody needs it any more.

use std::io;

use aya::programs::tc::qdisc_add_clsact;
use nix::errno::Errno;
use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    },
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcHandle, TcHeader, TcMessage},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

use super::chain;
use crate::datapath::StepError;

/// Adds the qdisc to a link, unless it is there; says whether it was not.
pub(super) fn add(name: &str) -> Result<bool, StepError> {
    match qdisc_add_clsact(name) {
        Ok(()) => Ok(true),
        Err(error) if chain(&error).contains(Errno::EEXIST.desc()) => Ok(false),
        Err(error) => Err(StepError::system(
            format!("can't add the qdisc clsact to {name}"),
            io::Error::other(chain(&error)),
        )),
    }
}

/// Removes the qdisc from a link, unless filters are there.
///
/// # Errors
///
/// Those of netlink; also where there is no such qdisc or link.
pub(super) fn remove_if_unused(ifindex: u32) -> io::Result<()> {
    for hook in [TcHandle::MIN_INGRESS, TcHandle::MIN_EGRESS] {
        if !filters(ifindex, hook)?.is_empty() {
            return Ok(());
        }
    }
    let header = TcHeader {
        handle: TcHandle {
            major: TcHandle::CLSACT.major,
            minor: 0,
        },
        ..at(ifindex, TcHandle::CLSACT)?
    };
    let message = TcMessage::from_parts(header, Vec::new());
    ask(
        RouteNetlinkMessage::DelQueueDiscipline(message),
        NLM_F_ACK,
        |_| {},
    )
}

/// The priorities of the filters at the ingress of a link.
///
/// # Errors
///
/// Those of netlink.
pub(super) fn priorities(ifindex: u32) -> io::Result<Vec<u16>> {
    filters(ifindex, TcHandle::MIN_INGRESS)
}

fn filters(ifindex: u32, hook: u16) -> io::Result<Vec<u16>> {
    let parent = TcHandle {
        major: TcHandle::CLSACT.major,
        minor: hook,
    };
    let message = TcMessage::from_parts(at(ifindex, parent)?, Vec::new());
    let mut found = Vec::new();
    ask(
        RouteNetlinkMessage::GetTrafficFilter(message),
        NLM_F_DUMP,
        |answer| {
            if let RouteNetlinkMessage::NewTrafficFilter(filter) = answer {
                // Priority and protocol share a word (`TC_H_MAJ` in `net/sched/cls_api.c`).
                found.extend(u16::try_from(filter.header.info >> 16));
            }
        },
    )?;
    Ok(found)
}

fn at(ifindex: u32, parent: TcHandle) -> io::Result<TcHeader> {
    Ok(TcHeader {
        index: i32::try_from(ifindex).map_err(io::Error::other)?,
        parent,
        ..TcHeader::default()
    })
}

/// Sends a request and hands each answer on, until the kernel says that there are no more.
fn ask(
    request: RouteNetlinkMessage,
    flags: u16,
    mut each: impl FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
    loop {
        let (answers, _) = socket.recv_from_full()?;
        let mut rest = answers.as_slice();
        while !rest.is_empty() {
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(io::Error::other)?;
            match answer.payload {
                NetlinkPayload::InnerMessage(inner) => each(inner),
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            // Messages begin at multiples of four bytes (netlink(7)).
            let length = answer.header.length as usize;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

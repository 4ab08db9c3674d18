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
        tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption},
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
    for hook in [INGRESS, EGRESS] {
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

/// The hook for what arrives, as the lower half of a handle.
pub(super) const INGRESS: u16 = TcHandle::MIN_INGRESS;
/// The hook for what is sent.
pub(super) const EGRESS: u16 = TcHandle::MIN_EGRESS;

/// A filter at a hook of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    /// Its priority.
    pub(super) priority: u16,
    /// Its handle.
    pub(super) handle: TcHandle,
    /// The name of its eBPF program, if it has one.
    pub(super) program: Option<String>,
}

impl Filter {
    fn read(message: &TcMessage) -> Self {
        let options = message
            .attributes
            .iter()
            .flat_map(|attribute| match attribute {
                TcAttribute::Options(options) => options.as_slice(),
                _ => &[],
            });
        let mut names = options.filter_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
            _ => None,
        });
        Self {
            // Priority and protocol share a word (`TC_H_MAJ` in `net/sched/cls_api.c`).
            priority: u16::try_from(message.header.info >> 16).unwrap_or_default(),
            handle: message.header.handle,
            program: names.next(),
        }
    }
}

/// The filters at a hook of a link, [`INGRESS`] or [`EGRESS`].
///
/// # Errors
///
/// Those of netlink.
pub(super) fn filters(ifindex: u32, hook: u16) -> io::Result<Vec<Filter>> {
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
                found.push(Filter::read(&filter));
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

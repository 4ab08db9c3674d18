//! The XDP programs, and where they are attached.

use std::collections::BTreeMap;

use aya::programs::{ProgramError, ProgramFd, Xdp, XdpMode, links::FdLink};
use nix::{errno::Errno, net::if_::if_indextoname};

use super::{LoadError, chain, from_program};
use crate::{
    datapath::StepError,
    plan::{Change, table},
};

/// Takes what arrives, run by drivers.
const NATIVE: &str = "mcr_xdp";
/// The same on socket buffers.
const GENERIC: &str = "mcr_xdp_generic";
/// Edits copies on their way out.
const LEAVING: &str = "mcr_xdp_out";

const PROGRAMS: [&str; 3] = [NATIVE, GENERIC, LEAVING];

/// Where the program is attached, by interface index.
#[derive(Debug, Default)]
pub(super) struct Attachments(BTreeMap<u32, FdLink>);

/// Loads the programs. They take Linux 5.18. Gives the one that edits.
pub(super) fn load(object: &mut aya::Ebpf) -> Result<ProgramFd, LoadError> {
    let failed = |error: ProgramError| from_program(&error);
    for name in PROGRAMS {
        program(object, name).and_then(Xdp::load).map_err(failed)?;
    }
    let editor = program(object, LEAVING).map_err(failed)?;
    let editor = editor.fd().map_err(failed)?;
    editor
        .try_clone()
        .map_err(|error| StepError::system("keep a program", error).into())
}

impl Attachments {
    /// Attaches to a link or detaches from it. Where it can't be run in another way, it is as before.
    pub(super) fn step(
        &mut self,
        object: &mut aya::Ebpf,
        change: Change<u32, table::Xdp>,
    ) -> Result<(), StepError> {
        // Even if the link has moved to another network namespace.
        self.0.remove(&change.key);
        let Some(mode) = change.new else {
            return Ok(());
        };
        self.attach(object, change.key, mode).inspect_err(|_| {
            if let Some(old) = change.old
                && let Err(error) = self.attach(object, change.key, old)
            {
                tracing::error!("{error}");
            }
        })
    }

    /// Attaches to a link, unless somebody else has. The attachment ends with this process.
    fn attach(
        &mut self,
        object: &mut aya::Ebpf,
        ifindex: u32,
        mode: table::Xdp,
    ) -> Result<(), StepError> {
        let link = if_indextoname(ifindex)
            .map_err(|errno| StepError::system(format!("link {ifindex}"), errno.into()))?;
        let failed = |error: &(dyn std::error::Error + 'static)| {
            let mut why = chain(error);
            // `veth_xdp_set` in `drivers/net/veth.c`, and some cards.
            if is(error, Errno::ERANGE) {
                why.push_str(
                    ": its MTU, or that of the other end of a veth, is too large for XDP (for a veth \
                     some 3500 bytes are the most)",
                );
            }
            StepError::system(
                format!("can't attach XDP to {}", link.to_string_lossy()),
                std::io::Error::other(why),
            )
        };
        let (name, mode) = match mode {
            table::Xdp::Native => (NATIVE, XdpMode::Driver),
            table::Xdp::Generic => (GENERIC, XdpMode::Skb),
        };
        let program = program(object, name).map_err(|error| failed(&error))?;
        let id = program
            .attach_to_if_index(ifindex, mode)
            .map_err(|error| failed(&error))?;
        let link = program.take_link(id).map_err(|error| failed(&error))?;
        // Any other kind would outlive this process, and might replace what is somebody else's.
        let link = FdLink::try_from(link).map_err(|error| failed(&error))?;
        self.0.insert(ifindex, link);
        Ok(())
    }
}

/// Whether it is this error of the system, or has it as a cause.
fn is(error: &(dyn std::error::Error + 'static), errno: Errno) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|cause| {
        let cause = cause.downcast_ref::<std::io::Error>();
        cause.and_then(std::io::Error::raw_os_error) == Some(errno as i32)
    })
}

fn program<'a>(object: &'a mut aya::Ebpf, name: &str) -> Result<&'a mut Xdp, ProgramError> {
    match object.program_mut(name) {
        Some(program) => program.try_into(),
        None => Err(ProgramError::UnexpectedProgramType),
    }
}

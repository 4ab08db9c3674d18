//! Where the program is attached: the ingress hook of a link.

use aya::{
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, qdisc_add_clsact},
    },
    util::KernelVersion,
};
use nix::{errno::Errno, net::if_::if_indextoname};

use super::chain;
use crate::datapath::StepError;

/// The two ways to attach to the ingress of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// TCX (Linux 6.6): ordered, and gone when the process is.
    Tcx,
    /// A filter under the qdisc clsact. It outlives the process, so it works on a lease.
    Clsact,
}

impl Hook {
    /// The better one this kernel has.
    #[must_use]
    pub fn of_this_kernel() -> Self {
        match KernelVersion::current() {
            Ok(version) if version >= KernelVersion::new(6, 6, 0) => Self::Tcx,
            _ => Self::Clsact,
        }
    }

    /// Whether an attachment goes on when this process ends.
    #[must_use]
    pub const fn outlives_process(self) -> bool {
        matches!(self, Self::Clsact)
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tc (tcx)",
            Self::Clsact => "tc (clsact)",
        }
    }
}

/// The program at one link. Detached when dropped, even if the link has moved to another
/// network namespace meanwhile.
#[derive(Debug)]
pub(super) struct Attachment {
    _link: SchedClassifierLink,
}

impl Attachment {
    /// Attaches in front of whatever is there: what follows still sees the frames, and what
    /// ends the chain does not end relaying.
    pub(super) fn new(
        program: &mut SchedClassifier,
        ifindex: u32,
        hook: Hook,
    ) -> Result<Self, StepError> {
        let name = if_indextoname(ifindex)
            .map_err(|errno| StepError::system(format!("link {ifindex}"), errno.into()))?;
        let name = name.to_string_lossy();
        let options = match hook {
            Hook::Tcx => TcAttachOptions::TcxOrder(LinkOrder::first()),
            Hook::Clsact => {
                add_clsact(&name)?;
                TcAttachOptions::Netlink(NlOptions::default())
            }
        };
        let what = |error: &ProgramError| {
            let cause = std::io::Error::other(chain(error));
            StepError::system(format!("can't attach to {name}"), cause)
        };
        let id = program
            .attach_with_options(&name, TcAttachType::Ingress, options)
            .map_err(|error| what(&error))?;
        let link = program.take_link(id).map_err(|error| what(&error))?;
        Ok(Self { _link: link })
    }
}

/// Adds the qdisc, unless it is there.
fn add_clsact(name: &str) -> Result<(), StepError> {
    match qdisc_add_clsact(name) {
        Ok(()) => Ok(()),
        Err(error) if chain(&error).contains(Errno::EEXIST.desc()) => Ok(()),
        Err(error) => Err(StepError::system(
            format!("can't add the qdisc clsact to {name}"),
            std::io::Error::other(chain(&error)),
        )),
    }
}

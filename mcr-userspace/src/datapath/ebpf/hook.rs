//! Where the programs are attached: the hooks of a link.

use aya::{
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::Link as _,
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions},
    },
    util::KernelVersion,
};
use nix::net::if_::{if_indextoname, if_nameindex};

use super::{
    chain,
    clsact::{self, Filter},
    tenant::Tenant,
};
use crate::datapath::StepError;

/// The priority of our filters under clsact. A filter without one gets 49152 or less, the
/// lowest number coming first, so this is in front of what others add without a thought.
const PRIORITY: u16 = 99;

/// The two ways to attach to a link.
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
            Ok(version) if Self::Tcx.is_in(version) => Self::Tcx,
            _ => Self::Clsact,
        }
    }

    /// Whether a kernel has it.
    pub(super) fn is_in(self, kernel: KernelVersion) -> bool {
        self == Self::Clsact || kernel >= KernelVersion::new(6, 6, 0)
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

/// A hook, with what it takes to attach there.
#[derive(Debug)]
pub(super) enum Attacher {
    Tcx,
    /// The tenant's number is part of the handles of its filters.
    Clsact(Tenant),
}

impl Attacher {
    /// For clsact, also removes what a killed process has left at any link of this network
    /// namespace.
    pub(super) fn new(hook: Hook) -> Result<Self, StepError> {
        if hook == Hook::Tcx {
            return Ok(Self::Tcx);
        }
        let tenant = Tenant::take()?;
        let links = if_nameindex()
            .map_err(|errno| StepError::system("can't list the links", errno.into()))?;
        for link in &links {
            remove_leftover(&link.name().to_string_lossy(), link.index(), &tenant);
        }
        Ok(Self::Clsact(tenant))
    }

    pub(super) fn hook(&self) -> Hook {
        match self {
            Self::Tcx => Hook::Tcx,
            Self::Clsact(_) => Hook::Clsact,
        }
    }

    /// Attaches in front of whatever is there, for what arrives or for what the host sends: what
    /// follows still sees the frames, and what ends the chain does not end relaying.
    pub(super) fn attach(
        &self,
        program: &mut SchedClassifier,
        ifindex: u32,
        direction: TcAttachType,
    ) -> Result<Attachment, StepError> {
        let name = if_indextoname(ifindex)
            .map_err(|errno| StepError::system(format!("link {ifindex}"), errno.into()))?;
        let name = name.to_string_lossy();
        // If something fails from here on, what is done until then is taken back.
        let mut attachment = Attachment::default();
        let options = match self {
            Self::Tcx => TcAttachOptions::TcxOrder(LinkOrder::first()),
            Self::Clsact(tenant) => {
                // Another mcr that has added it leaves it to us if it ends first.
                let ours = clsact::add(&name)?
                    || clsact::filters(ifindex, clsact::INGRESS)
                        .is_ok_and(|filters| filters.iter().any(is_ours));
                attachment.qdisc = ours.then_some(ifindex);
                TcAttachOptions::Netlink(NlOptions {
                    priority: PRIORITY,
                    handle: tenant.handle(),
                    ..NlOptions::default()
                })
            }
        };
        let failed = |error: &ProgramError| {
            let cause = std::io::Error::other(chain(error));
            StepError::system(format!("can't attach to {name}"), cause)
        };
        let id = program
            .attach_with_options(&name, direction, options)
            .map_err(|error| failed(&error))?;
        let link = program.take_link(id).map_err(|error| failed(&error))?;
        attachment.link = Some(link);
        Ok(attachment)
    }
}

/// A program at one hook. Detached when dropped, even if the link has moved to another
/// network namespace meanwhile.
#[derive(Debug, Default)]
pub(super) struct Attachment {
    link: Option<SchedClassifierLink>,
    /// The link whose qdisc is ours to remove, unless somebody else has come to use it.
    qdisc: Option<u32>,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        drop(self.link.take());
        if let Some(ifindex) = self.qdisc {
            // If the link is gone, so is its qdisc.
            let _ = clsact::remove_if_unused(ifindex);
        }
    }
}

/// Removes the filters of this number that are ours, and the qdisc if it was the last one; there
/// mostly is none. Somebody else's may have the same handle and priority, but not the program.
fn remove_leftover(name: &str, ifindex: u32, tenant: &Tenant) {
    let handle = tenant.handle();
    let hooks = [
        (TcAttachType::Ingress, clsact::INGRESS),
        (TcAttachType::Egress, clsact::EGRESS),
    ];
    let remove = |(direction, hook)| {
        let ours = clsact::filters(ifindex, hook).is_ok_and(|filters| {
            filters.iter().any(|filter| {
                is_ours(filter)
                    && (filter.handle.major, filter.handle.minor) == (0, tenant.number())
            })
        });
        // Such a value detaches when it ends, so there is none of a stranger's.
        ours && SchedClassifierLink::attached(name, direction, PRIORITY, handle, None)
            .is_ok_and(|link| link.detach().is_ok())
    };
    let removed = hooks.map(remove);
    if removed.contains(&true) {
        // Somebody's filter may stand in the way, and the qdisc is theirs then.
        let _ = clsact::remove_if_unused(ifindex);
    }
}

/// Whether a filter is that of an mcr.
fn is_ours(filter: &Filter) -> bool {
    filter.priority == PRIORITY
        && filter
            .program
            .as_deref()
            .is_some_and(|name| [super::ARRIVING, super::LEAVING].contains(&name))
}

#[cfg(test)]
mod tests {
    use aya::util::KernelVersion;

    use super::Hook;

    #[test]
    fn tcx_came_with_linux_6_6() {
        let [before, since] = [(6, 5), (6, 6)].map(|(a, b)| KernelVersion::new(a, b, 0));
        assert!(!Hook::Tcx.is_in(before) && Hook::Tcx.is_in(since));
        assert!(Hook::Clsact.is_in(before) && Hook::Clsact.is_in(since));
    }
}

//! Which of the mcr processes of a network namespace this one is, so that the filters of one
//! that was killed can be told from those of one that runs.

use std::os::{
    linux::net::SocketAddrExt as _,
    unix::net::{SocketAddr, UnixDatagram},
};

use aya::programs::tc::TcHandle;

use crate::datapath::StepError;

/// As many processes as one network namespace can sensibly have.
const MOST: u16 = 64;

/// A number that no other process of this network namespace has. The kernel frees it when the
/// process ends, however it ends.
#[derive(Debug)]
pub(super) struct Tenant {
    number: u16,
    /// Names of abstract sockets belong to the network namespace (`unix(7)`), as filters do.
    _lock: UnixDatagram,
}

impl Tenant {
    /// Takes the lowest free number.
    pub(super) fn take() -> Result<Self, StepError> {
        let failed = |source| StepError::system("can't take a number for this process", source);
        for number in 1..=MOST {
            let name = format!("mcr-tc-{number}");
            let address = SocketAddr::from_abstract_name(name).map_err(failed)?;
            match UnixDatagram::bind_addr(&address) {
                Ok(lock) => {
                    return Ok(Self {
                        number,
                        _lock: lock,
                    });
                }
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(StepError::Unsupported(format!(
            "{MOST} other mcr processes run in this network namespace already"
        )))
    }

    /// The number: the lower half of [`Self::handle`], of which the upper one is 0.
    pub(super) fn number(&self) -> u16 {
        self.number
    }

    /// The handle of this process's filters.
    pub(super) fn handle(&self) -> TcHandle {
        TcHandle::new(0, self.number)
    }
}

//! Which datapath makes the copies.

use super::Settings;
use crate::datapath::{
    Datapath,
    ebpf::{Ebpf, Hook, LoadError},
};

/// A datapath, and what the plan has to know of it.
pub struct Selected {
    /// Makes the copies.
    pub back_end: Box<dyn Datapath>,
    /// Whether its attachments outlive this process.
    pub leased: bool,
}

/// Why there is no datapath.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// The TC program.
    #[error(transparent)]
    Ebpf(#[from] LoadError),
}

/// Gets the datapath that was asked for, or the best one there is.
///
/// # Errors
///
/// [`SelectError`]: what was asked for can't be had, or nothing can.
pub fn select(settings: &Settings) -> Result<Selected, SelectError> {
    Ok(tc(settings)?)
}

fn tc(settings: &Settings) -> Result<Selected, LoadError> {
    let hook = settings.hook.unwrap_or_else(Hook::of_this_kernel);
    Ok(Selected {
        back_end: Box::new(Ebpf::load(hook)?),
        leased: hook.outlives_process(),
    })
}

impl SelectError {
    /// Whether it is for want of a permission.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        let Self::Ebpf(error) = self;
        matches!(error, LoadError::Permission)
    }

    /// Whether the kernel lacks something.
    #[must_use]
    pub fn is_kernel(&self) -> bool {
        let Self::Ebpf(error) = self;
        matches!(error, LoadError::Kernel(_))
    }
}

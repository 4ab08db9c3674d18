//! The ways `mcr` makes copies: what must hold holds on each of them.

use anyhow::Result;

use crate::Feature;

/// Who makes the copies, and how it is hooked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datapath {
    /// The TC program on TCX (Linux 6.6).
    Tcx,
    /// The TC program as a filter under clsact.
    Clsact,
    /// Packet sockets.
    AfPacket,
}

impl Datapath {
    /// The TC program on the better hook of this kernel.
    pub fn tc() -> Result<Self> {
        let tcx = Feature::Tcx.is_here()?;
        Ok(if tcx { Self::Tcx } else { Self::Clsact })
    }

    /// What it needs of the kernel to relay datagrams whose segmentation was left to hardware.
    #[must_use]
    pub fn for_segments(self) -> &'static [Feature] {
        match self {
            Self::AfPacket => &[Feature::DescribedSegments],
            Self::Tcx | Self::Clsact => self.needs(),
        }
    }

    /// What it needs of the kernel.
    #[must_use]
    pub fn needs(self) -> &'static [Feature] {
        match self {
            Self::Tcx => &[Feature::Tcx],
            Self::Clsact | Self::AfPacket => &[],
        }
    }

    /// What makes `mcr run` choose it.
    #[must_use]
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Tcx => &["--datapath", "tc", "--tc-hook", "tcx"],
            Self::Clsact => &["--datapath", "tc", "--tc-hook", "clsact"],
            Self::AfPacket => &["--datapath", "afpacket"],
        }
    }

    /// How the line with `ready` names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcx => "datapath tc (tcx)",
            Self::Clsact => "datapath tc (clsact)",
            Self::AfPacket => "datapath afpacket",
        }
    }
}

/// Makes three tests of each function `fn(Datapath) -> Result<()>`: one on every datapath.
#[macro_export]
macro_rules! on_every_datapath {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            $crate::on!(tcx, Tcx, $name);
            $crate::on!(clsact, Clsact, $name);
            $crate::on!(afpacket, AfPacket, $name);
        }
    )*};
}

/// Makes two tests of each function `fn(Datapath) -> Result<()>`: one on each hook of TC.
#[macro_export]
macro_rules! on_both_hooks {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            $crate::on!(tcx, Tcx, $name);
            $crate::on!(clsact, Clsact, $name);
        }
    )*};
}

/// Makes a test called `$test` of a function in the module around.
#[macro_export]
macro_rules! on {
    ($test:ident, $datapath:ident, $name:ident) => {
        #[test]
        fn $test() -> anyhow::Result<()> {
            let datapath = $crate::Datapath::$datapath;
            if $crate::skipped(datapath.needs())? {
                return Ok(());
            }
            super::$name(datapath)
        }
    };
}

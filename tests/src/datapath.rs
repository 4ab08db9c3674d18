//! The ways `mcr` makes copies: what must hold holds on each of them.

use std::borrow::Cow;

use anyhow::Result;

use crate::Feature;

/// Who makes the copies, and how it is hooked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datapath {
    /// The TC program on TCX (Linux 6.6).
    Tcx,
    /// The TC program as a filter under clsact.
    Clsact,
    /// Programs in the driver, which take frames away from the host.
    Xdp,
    /// Packet sockets.
    AfPacket,
    /// What `mcr` chooses if nobody asks for anything.
    Auto,
}

impl Datapath {
    /// The TC program on the better hook of this kernel.
    pub fn tc() -> Result<Self> {
        let tcx = Feature::Tcx.is_here()?;
        Ok(if tcx { Self::Tcx } else { Self::Clsact })
    }

    /// What it is where nothing is offered to XDP: of [`Self::Xdp`] and [`Self::Auto`] the TC program.
    pub fn plain(self) -> Result<Self> {
        match self {
            Self::Xdp | Self::Auto => Self::tc(),
            Self::Tcx | Self::Clsact | Self::AfPacket => Ok(self),
        }
    }

    /// What it needs of the kernel to relay datagrams whose segmentation was left to hardware.
    #[must_use]
    pub fn for_segments(self) -> &'static [Feature] {
        match self {
            Self::AfPacket => &[Feature::DescribedSegments],
            Self::Tcx | Self::Clsact | Self::Xdp | Self::Auto => self.needs(),
        }
    }

    /// What it needs of the kernel.
    #[must_use]
    pub fn needs(self) -> &'static [Feature] {
        match self {
            Self::Tcx => &[Feature::Tcx],
            Self::Xdp => &[Feature::XdpFeatures],
            Self::Clsact | Self::AfPacket | Self::Auto => &[],
        }
    }

    /// What makes `mcr run` choose it.
    #[must_use]
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Tcx => &["--datapath", "tc", "--tc-hook", "tcx"],
            Self::Clsact => &["--datapath", "tc", "--tc-hook", "clsact"],
            Self::Xdp => &["--datapath", "xdp"],
            Self::AfPacket => &["--datapath", "afpacket"],
            Self::Auto => &["--datapath", "auto"],
        }
    }

    /// Rules for it, of rules with a relay a line: XDP leaves nothing to the host.
    #[must_use]
    pub fn rules(self, rules: &str) -> Cow<'_, str> {
        if self != Self::Xdp {
            return rules.into();
        }
        let line = |line: &str| match line.strip_suffix("}\n") {
            Some(relay) if !line.contains("local: ") => format!("{relay}, local: drop}}\n"),
            _ => line.to_owned(),
        };
        rules.split_inclusive('\n').map(line).collect()
    }

    /// How the line with `ready` names it: XDP by the programs beside it, which serve the rest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcx => "datapath tc (tcx)",
            Self::Clsact => "datapath tc (clsact)",
            Self::AfPacket => "datapath afpacket",
            Self::Xdp | Self::Auto => Self::tc().map_or("datapath tc", Self::name),
        }
    }

    /// How `mcr show` names it.
    #[must_use]
    pub fn shown(self) -> &'static str {
        self.name().trim_start_matches("datapath ")
    }

    /// How `mcr show` names what makes the copies on links that offer nothing.
    #[must_use]
    pub fn replicator(self) -> &'static str {
        match self {
            Self::Tcx | Self::Clsact | Self::Auto => "clone",
            Self::Xdp => "xdp-redirect",
            Self::AfPacket => "ring",
        }
    }
}

/// Makes four tests of each function `fn(Datapath) -> Result<()>`: one on every datapath that can be
/// asked for, and one on what is chosen if none is.
#[macro_export]
macro_rules! on_every_datapath {
    ($($name:ident),* $(,)?) => {$(
        $crate::on_these!($name: tcx Tcx, clsact Clsact, afpacket AfPacket, auto Auto);
    )*};
}

/// As [`on_every_datapath`], and a fifth by XDP: for what holds whoever else gets the frame, between links
/// that it can run on.
#[macro_export]
macro_rules! on_every_datapath_and_xdp {
    ($($name:ident),* $(,)?) => {$(
        $crate::on_these!(
            $name: tcx Tcx, clsact Clsact, xdp Xdp, afpacket AfPacket, auto Auto
        );
    )*};
}

/// Makes two tests of each function `fn(Datapath) -> Result<()>`: one on each hook of TC.
#[macro_export]
macro_rules! on_both_hooks {
    ($($name:ident),* $(,)?) => {$(
        $crate::on_these!($name: tcx Tcx, clsact Clsact);
    )*};
}

/// Makes a test of a function on each of these datapaths, in a module of its name.
#[macro_export]
macro_rules! on_these {
    ($name:ident: $($test:ident $datapath:ident),*) => {
        mod $name {
            $($crate::on!($test, $datapath, $name);)*
        }
    };
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

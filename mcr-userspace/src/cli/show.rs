//! `mcr show`: what a running mcr does now.

mod columns;
mod tables;

use std::{
    env,
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use clap::{Args, ValueEnum};

use super::{print, target::Target};
use crate::control::protocol::{Body, Part, Request};

const AFTER_HELP: &str = "\
Examples:
  mcr show
  mcr show links
  mcr show relays --json --instance lab

Without a part: relays, links, groups and routes. Frames `expected` are copies that the frames of a
relay should have made, those of other relays that match the same frames included; `limited` are frames
that its limit has taken away from it.

--json prints the answer as it came, one line: version, and show with instance, pid, mcr, uptime (s),
rule_file, relay_mac, datapath, xdp_links, and lists relays (name, state, waits_for, reasons, warnings, frames,
bytes, expected, limited), links (name, alternative_names, ifindex, state, reason, mac, mtu, relays, attached,
ingress, egress), groups (group, link, version, sources, state, reason), routes (group, source,
protocol, ports, vlan, ingress, from_host, relays, local, egresses: link, datapath), and counters (relays, ingress, egress, as
`mcr run --stats` writes them). Fields may be added.

Exit codes: 0; 64 usage; 69 no running instance; 71 operating system; 77 permission.";

/// Show what a running mcr does now
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ShowArgs {
    /// The part to show [default: relays, links, groups and routes]
    #[arg(value_name = "PART")]
    part: Option<Shown>,

    /// Print the answer as it came, as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shown {
    /// The relays: whether they are in force, and what they have done
    Relays,
    /// What frames are looked up in, and where copies go
    Routes,
    /// The links that relays name: what they do, or why they do not
    Links,
    /// The groups joined
    Groups,
    /// Everything counted since the start, with the reasons
    Counters,
}

/// Asks and shows the answer.
pub(super) fn run(args: ShowArgs) -> anyhow::Result<ExitCode> {
    let part = args.part.map_or(Part::All, Part::from);
    let (line, body) = args.target.ask(&Request::Show { part })?;
    if args.json {
        print(&format!("{line}\n"))?;
    } else if let Body::Show(mut show) = body {
        if part == Part::All {
            // The tables of relays and links have them; those of what is gone are asked for.
            show.counters = None;
        }
        print(&tables::of(&show).text(colour()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether standard output is where people look, and they have not said that they want no colour
/// (<https://no-color.org>).
fn colour() -> bool {
    io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

impl From<Shown> for Part {
    fn from(shown: Shown) -> Self {
        match shown {
            Shown::Relays => Self::Relays,
            Shown::Routes => Self::Routes,
            Shown::Links => Self::Links,
            Shown::Groups => Self::Groups,
            Shown::Counters => Self::Counters,
        }
    }
}

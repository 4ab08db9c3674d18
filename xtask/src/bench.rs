//! `cargo xtask bench`: what a relayed frame costs, beside its yardsticks.

use anyhow::Result;
use clap::Args;

use crate::debian;
use crate::run;
use crate::workspace::Workspace;

/// Measures what a relayed frame costs, beside yardsticks
#[derive(Args)]
pub(crate) struct Bench {
    /// For the benchmark, such as cost --fan-out 1,8 --variants mirred,tc; see --help
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs the command; returns only if something fails before the benchmark is started.
pub(crate) fn command(workspace: &Workspace, arguments: &Bench) -> Result<()> {
    debian::install(&debian::BENCH)?;
    let mut command = run::beside_mcr(workspace, "mcr-bench", true)?;
    command.args(&arguments.arguments);
    run::become_it(&mut command)
}

//! The project's own commands, called by `cargo xtask`.

mod bench;
mod debian;
mod ebpf;
mod fuzz;
mod image;
mod run;
mod shell;
mod skipped;
mod soak;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use workspace::Workspace;

/// The project's own commands
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Run(run::Run),
    Test(test::Test),
    Soak(soak::Soak),
    Fuzz(fuzz::Fuzz),
    Bench(bench::Bench),
    BuildEbpf(ebpf::BuildEbpf),
    Image(image::Image),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match execute(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            shell::say(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Verb) -> Result<()> {
    let workspace = Workspace::find()?;
    match command {
        Verb::Run(arguments) => run::command(&workspace, &arguments),
        Verb::Test(arguments) => test::command(&workspace, &arguments),
        Verb::Soak(arguments) => soak::command(&workspace, &arguments),
        Verb::Fuzz(arguments) => fuzz::command(&workspace, &arguments),
        Verb::Bench(arguments) => bench::command(&workspace, &arguments),
        Verb::Image(arguments) => image::command(&workspace, &arguments),
        Verb::BuildEbpf(arguments) => ebpf::command(&workspace, &arguments),
    }
}

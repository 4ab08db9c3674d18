//! The command `mcr`.
use std::process::ExitCode;

fn main() -> ExitCode {
    mcr::cli::main()
}

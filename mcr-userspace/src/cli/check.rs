//! `mcr check`: all errors and warnings of a rule file, changing nothing.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use super::note;
use crate::config::load::{LoadError, load};

/// Show what is wrong in a rule file, changing nothing
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mcr check /etc/mcr/mcr.yaml\n\n\
    Exit codes: 0; 1 if there are errors or warnings; 66 file missing; 71 operating system; 77 permission.")]
pub(super) struct Args {
    /// The rule file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Shows what is wrong in a rule file. Exits with 0 if there is nothing, with 1 if there are errors or
/// warnings, and otherwise with why the file could not be read.
#[must_use]
pub(super) fn run(args: &Args) -> ExitCode {
    let (report, found) = match load(&args.file) {
        Ok(loaded) => (loaded.warnings.to_string(), !loaded.warnings.is_empty()),
        Err(LoadError::Rules(report)) => (report.to_string(), true),
        Err(error) => {
            note(&error.to_string());
            return ExitCode::from(error.exit_code());
        }
    };
    match writeln!(io::stdout(), "{report}") {
        // Whoever reads only the first lines of it has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            note(&format!("the report can't be written: {error}"));
            ExitCode::from(71)
        }
        _ => ExitCode::from(u8::from(found)),
    }
}

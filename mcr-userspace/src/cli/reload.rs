//! `mcr reload`: have a running mcr read its rule file again.

use std::process::ExitCode;

use super::{note, print, target::Target};
use crate::control::{
    client::AskError,
    protocol::{Body, Complaint, Request},
};

/// Have a running mcr read its rule file again, as SIGHUP does
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mcr reload
  mcr reload --instance lab

A file that is wrong changes nothing, nor does one with a relay that a datapath which is demanded
can't serve. `datapath`, `limits` and `control` stay as they were when mcr started: if the file says
otherwise now, a warning does.

Exit codes: 0; 64 usage; 66 no rule file; 69 no running instance; 71 operating system; 76 the kernel
lacks what was demanded; 77 permission; 78 rule file.")]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    target: Target,
}

/// Asks for it and shows what came of it.
pub(super) fn run(args: ReloadArgs) -> anyhow::Result<ExitCode> {
    let answer = args.target.ask(&Request::Reload {});
    if let Err(AskError::Refused(refusal)) = &answer {
        refusal.complaints.iter().for_each(complain);
    }
    if let (_, Body::Reload(reloaded)) = answer? {
        reloaded.warnings.iter().for_each(complain);
        let restart = reloaded.restart.iter();
        restart.for_each(|sentence| note(&format!("warning: {sentence}")));
        print(&format!(
            "the rule file has been read again: {} of {} relays in force\n",
            reloaded.in_force, reloaded.relays
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn complain(complaint: &Complaint) {
    let Complaint {
        file,
        line,
        column,
        severity,
        message,
    } = complaint;
    note(&format!("{file}:{line}:{column}: {severity}: {message}"));
}

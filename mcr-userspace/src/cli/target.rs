//! Which running mcr is meant.

use std::path::PathBuf;

use clap::Args;

use super::{INTERNAL, KERNEL, NO_FILE, PERMISSION, RULES, SYSTEM, UNAVAILABLE};
use crate::control::{
    Instance,
    client::{AskError, ask},
    place::socket_path,
    protocol::{Body, RefusalKind, Request},
};

/// Which running mcr is meant
#[derive(Debug, Args)]
pub(super) struct Target {
    /// The name the mcr that is meant was started with
    #[arg(
        long,
        value_name = "NAME",
        env = "MCR_INSTANCE",
        default_value = "default"
    )]
    instance: Instance,

    /// Its control socket, if it is not where its name says [default: /run/mcr/NAME.sock]
    #[arg(long, value_name = "PATH", env = "MCR_SOCKET", value_parser = socket_path)]
    socket: Option<PathBuf>,
}

impl Target {
    /// Asks it.
    pub(super) fn ask(self, request: &Request) -> Result<(String, Body), AskError> {
        let path = self.socket.unwrap_or_else(|| self.instance.socket());
        ask(&path, request)
    }
}

/// The exit code of a command that got no answer.
pub(super) fn exit_code(error: &AskError) -> u8 {
    match error {
        AskError::NotRunning { .. }
        | AskError::Dead { .. }
        | AskError::Silent(_)
        | AskError::Ended(_) => UNAVAILABLE,
        AskError::Permission(_) => PERMISSION,
        AskError::System { .. } => SYSTEM,
        AskError::Strange { .. } => INTERNAL,
        AskError::Refused(refusal) => match refusal.kind {
            RefusalKind::TooManyClients | RefusalKind::Timeout | RefusalKind::Busy => UNAVAILABLE,
            RefusalKind::NoRuleFile => NO_FILE,
            RefusalKind::Permission => PERMISSION,
            RefusalKind::Rules => RULES,
            RefusalKind::Denied => KERNEL,
            RefusalKind::System => SYSTEM,
            RefusalKind::BadRequest
            | RefusalKind::Version
            | RefusalKind::TooLong
            | RefusalKind::Other => INTERNAL,
        },
    }
}

//! Reading the rule file again.

use super::{Controller, Settings, SettleError};
use crate::{
    config::{
        load::{LoadError, Loaded, load_again},
        model::RuleFile,
        report::Report,
    },
    control::protocol::{Complaint, Refusal, RefusalKind, Reloaded},
};

/// Reads the rule file again; one that is wrong changes nothing. What comes of it is logged, and
/// returned for who has asked for it.
///
/// # Errors
///
/// Why nothing has changed.
pub(super) fn reload(
    settings: &Settings,
    controller: &mut Controller,
) -> Result<Reloaded, Refusal> {
    let Some(path) = &settings.file else {
        let message = "there is no rule file to read again: the relay was given by flags";
        tracing::warn!("{message}");
        return Err(Refusal::new(RefusalKind::NoRuleFile, message));
    };
    let Loaded { rules, warnings } = load_again(path).map_err(|error| {
        tracing::error!("nothing has changed: {error}");
        refusal(&error)
    })?;
    if !warnings.is_empty() {
        tracing::warn!("{warnings}");
    }
    let restart = restart(settings, &rules);
    for sentence in &restart {
        tracing::warn!("{sentence}");
    }
    controller.set_relays(rules.relays).map_err(|error| {
        tracing::error!("nothing has changed: {error}");
        let kind = match &error {
            SettleError::Denied(_) => RefusalKind::Denied,
            error if error.is_in_the_rules() => RefusalKind::Rules,
            _ => RefusalKind::System,
        };
        Refusal::new(kind, format!("nothing has changed: {error}"))
    })?;
    let (relays, in_force) = controller.relays();
    Ok(Reloaded {
        relays,
        in_force,
        warnings: complaints(&warnings),
        restart,
    })
}

/// What the rule file says otherwise than at the start, and stays as it was then, each as a sentence.
fn restart(settings: &Settings, rules: &RuleFile) -> Vec<String> {
    let datapath = settings.datapath_of_file;
    [
        ("datapath", datapath.is_some_and(|of| of != rules.datapath)),
        ("limits", settings.limits != rules.limits),
        ("control", settings.socket_of_file != rules.control),
    ]
    .into_iter()
    .filter(|(_, changed)| *changed)
    .map(|(field, _)| {
        format!("`{field}` does not say what it said when mcr started: restart mcr to change it")
    })
    .collect()
}

fn refusal(error: &LoadError) -> Refusal {
    let kind = match error {
        LoadError::Missing(_) | LoadError::Directory(_) | LoadError::NotRegular(_) => {
            RefusalKind::NoRuleFile
        }
        LoadError::Permission(_) => RefusalKind::Permission,
        LoadError::Io { .. } => RefusalKind::System,
        LoadError::Rules(_) => RefusalKind::Rules,
    };
    let mut refusal = Refusal::new(kind, format!("nothing has changed: {error}"));
    if let LoadError::Rules(report) = error {
        "nothing has changed: the rule file is wrong".clone_into(&mut refusal.message);
        refusal.complaints = complaints(report);
    }
    refusal
}

fn complaints(report: &Report) -> Vec<Complaint> {
    let complaint = |diagnostic: &crate::config::diagnostic::Diagnostic| Complaint {
        file: report.file().to_owned(),
        line: diagnostic.place.line,
        column: diagnostic.place.column,
        severity: diagnostic.severity.to_string(),
        message: diagnostic.message.clone(),
    };
    report.diagnostics().map(complaint).collect()
}

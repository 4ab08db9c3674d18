//! A relay given by flags instead of a rule file, with the same checks.

use std::fmt;

use super::{
    diagnostic::Severity,
    draft::{Draft, EditsDraft, Values, WayDraft, Ways},
    model::{DatapathChoice, Relay},
    problem::{Kind, Problem, Problems},
    value,
};

/// The flags of `mcr run` that make a relay, as they were given. Lists are empty where the flag
/// was not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelayFlags {
    /// `--from`.
    pub from: Vec<String>,
    /// `--to`.
    pub to: Vec<String>,
    /// `--between`.
    pub between: Vec<String>,
    /// `--group`.
    pub group: Vec<String>,
    /// `--source`.
    pub source: Vec<String>,
    /// `--port`.
    pub port: Vec<String>,
    /// `--protocol`.
    pub protocol: Vec<String>,
    /// `--vlan`.
    pub vlan: Vec<String>,
    /// `--ttl`.
    pub ttl: Option<String>,
    /// `--source-mac`.
    pub source_mac: Option<String>,
    /// `--local`.
    pub local: Option<String>,
    /// `--limit`.
    pub limit: Option<String>,
    /// `--host-frames`.
    pub host_frames: Option<String>,
    /// `--join`.
    pub join: Option<String>,
}

/// What is wrong with a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagProblem {
    /// The flag, with its dashes.
    pub flag: &'static str,
    /// What is wrong.
    pub problem: Problem,
}

impl FlagProblem {
    /// How bad it is.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        self.problem.kind.severity()
    }
}

impl fmt::Display for FlagProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.flag, self.severity(), self.problem)
    }
}

impl RelayFlags {
    /// Whether any of them was given.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    /// The relay, under this name, and warnings.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, errors and warnings.
    pub fn relay(
        &self,
        name: &str,
        datapath: DatapathChoice,
    ) -> Result<(Relay, Vec<FlagProblem>), Vec<FlagProblem>> {
        let mut problems = Problems::default();
        let draft = self.draft(name, &mut problems);
        let relay = draft.check(Some(datapath), &mut problems);
        let failed = problems.has_errors();
        let all = problems
            .finish()
            .into_iter()
            .map(|(flag, problem)| FlagProblem { flag, problem })
            .collect();
        match relay {
            Some(relay) if !failed => Ok((relay, all)),
            _ => Err(all),
        }
    }

    fn draft(&self, name: &str, problems: &mut Problems<&'static str>) -> Draft<&'static str> {
        if self.group.is_empty() {
            let message = "no group is given: `--group 239.1.1.1` would be one";
            problems.add("--group", Kind::MissingField, message);
        }
        Draft {
            at: "--from",
            name: problems.take("--name", value::name(name)),
            ways: self.ways(problems),
            groups: distinct("--group", &self.group, value::group, problems),
            sources: distinct("--source", &self.source, value::source, problems),
            ports: distinct("--port", &self.port, value::port, problems),
            protocols: distinct("--protocol", &self.protocol, value::protocol, problems),
            frames: None,
            vlans: distinct("--vlan", &self.vlan, value::vlan, problems),
            ttl: single("--ttl", self.ttl.as_ref(), value::ttl, problems),
            source_mac: single(
                "--source-mac",
                self.source_mac.as_ref(),
                value::source_mac,
                problems,
            ),
            local: single("--local", self.local.as_ref(), value::local, problems),
            limit: single("--limit", self.limit.as_ref(), value::limit, problems),
            host_frames: single(
                "--host-frames",
                self.host_frames.as_ref(),
                value::boolean,
                problems,
            ),
            join: single("--join", self.join.as_ref(), value::boolean, problems),
        }
    }

    fn ways(&self, problems: &mut Problems<&'static str>) -> Ways<&'static str> {
        let way = |text: &str| {
            Ok(WayDraft {
                link: value::link(text)?,
                edits: EditsDraft::none(),
            })
        };
        let from = distinct("--from", &self.from, value::link, problems);
        let to = values("--to", &self.to, way, problems);
        let between = values("--between", &self.between, way, problems);
        let (flag, kind, message) = match (from.at, to.at, between.at) {
            (Some(_), Some(_), None) => return Ways::FromTo(from, to),
            (None, None, Some(_)) => return Ways::Between(between),
            (_, _, Some(_)) => (
                "--between",
                Kind::FromAndBetween,
                "stands for `--from` and `--to` alike: give either it or them",
            ),
            (Some(_), None, None) => (
                "--to",
                Kind::MissingField,
                "no link to send to is given: `--to br0` would be one",
            ),
            (None, _, None) => (
                "--from",
                Kind::MissingField,
                "no link to take frames from is given: `--from eth0` would be one",
            ),
        };
        problems.add(flag, kind, message);
        Ways::Unclear
    }
}

fn distinct<T: Ord + fmt::Display>(
    flag: &'static str,
    texts: &[String],
    parse: fn(&str) -> Result<T, Problem>,
    problems: &mut Problems<&'static str>,
) -> Values<&'static str, T> {
    values(flag, texts, parse, problems).distinct(problems)
}

fn values<T>(
    flag: &'static str,
    texts: &[String],
    parse: impl Fn(&str) -> Result<T, Problem>,
    problems: &mut Problems<&'static str>,
) -> Values<&'static str, T> {
    if texts.is_empty() {
        return Values::absent();
    }
    let mut items = Vec::new();
    for text in texts {
        items.extend(problems.take(flag, parse(text)).map(|item| (flag, item)));
    }
    Values {
        at: Some(flag),
        name: flag,
        complete: items.len() == texts.len(),
        items,
    }
}

fn single<T>(
    flag: &'static str,
    text: Option<&String>,
    parse: fn(&str) -> Result<T, Problem>,
    problems: &mut Problems<&'static str>,
) -> Option<(&'static str, T)> {
    Some((flag, problems.take(flag, parse(text?))?))
}

#[cfg(test)]
mod tests;

//! How `mcr` makes copies, as it shows.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::Mcr;

/// How the copies for a link are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Who makes them: `xdp`, `tc (tcx)`, `tc (clsact)` or `afpacket`.
    pub datapath: String,
    /// In which way.
    pub replicator: String,
    /// Why not in a faster one; empty if there is none.
    pub reason: String,
}

impl Mcr {
    /// How copies of frames to a group are made, by the links they are sent to: of the first route.
    pub fn chosen(&self, group: &str) -> Result<BTreeMap<String, Chosen>> {
        read(&self.show("routes")?, group)
    }

    /// Waits until copies of frames to a group are made for these links, and no others, each by this
    /// datapath and replicator.
    pub fn until_chosen(&self, group: &str, expected: &[(&str, &str, &str)]) -> Result<()> {
        let is = |show: &Value| read(show, group).is_ok_and(|chosen| are(&chosen, expected));
        self.shows("routes", is).map(drop)
    }

    /// Copies of frames to a group are made for these links, and no others, each by this datapath and
    /// replicator.
    pub fn ensure_chosen(&self, group: &str, expected: &[(&str, &str, &str)]) -> Result<()> {
        let chosen = self.chosen(group)?;
        ensure!(are(&chosen, expected), "not {expected:?}, but {chosen:#?}");
        Ok(())
    }
}

fn are(chosen: &BTreeMap<String, Chosen>, expected: &[(&str, &str, &str)]) -> bool {
    let is = |(link, datapath, replicator): &(&str, &str, &str)| {
        chosen
            .get(*link)
            .is_some_and(|chosen| chosen.datapath == *datapath && chosen.replicator == *replicator)
    };
    chosen.len() == expected.len() && expected.iter().all(is)
}

fn read(show: &Value, group: &str) -> Result<BTreeMap<String, Chosen>> {
    let routes = show["routes"].as_array().context("no routes")?;
    let route = routes.iter().find(|route| route["group"] == group);
    let route = route.with_context(|| format!("no route to {group}: {show:#}"))?;
    let egresses = route["egresses"].as_array().context("no egresses")?;
    let word = |egress: &Value, field: &str| egress[field].as_str().unwrap_or_default().to_owned();
    let chosen = egresses.iter().map(|egress| {
        let chosen = Chosen {
            datapath: word(egress, "datapath"),
            replicator: word(egress, "replicator"),
            reason: word(egress, "reason"),
        };
        (word(egress, "link"), chosen)
    });
    Ok(chosen.collect())
}

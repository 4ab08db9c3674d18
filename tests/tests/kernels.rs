//! What is documented of kernels is what they have.
//!
//! - The table in `docs/kernels.md` has a row for each feature that tests may need, in the words of the
//!   code.
//! - On the kernels that have a column there it says what the running one has.

use anyhow::{Context as _, Result, ensure};
use mcr_tests::{Feature, tell_feature};
use nix::sys::utsname::uname;

const DOCUMENT: &str = include_str!("../../docs/kernels.md");
const REMEDY: &str = "`cargo xtask test --vm --keep` writes docs/kernels.md";

/// The cells of the table, with its head.
fn table() -> Vec<Vec<&'static str>> {
    let lines = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| "));
    lines
        .map(|line| line.trim_end_matches(" |").split(" | ").collect())
        .collect()
}

#[test]
fn the_table_of_kernels_has_every_feature() -> Result<()> {
    let table = table();
    let rows = table.get(1..).context(REMEDY)?;
    ensure!(rows.len() == Feature::ALL.len(), REMEDY);
    for (row, feature) in rows.iter().zip(Feature::ALL) {
        ensure!(
            row.first() == Some(&feature.name()) && row.last() == Some(&feature.without()),
            "{row:?} is not about {}: {REMEDY}",
            feature.name()
        );
    }
    Ok(())
}

#[test]
fn the_table_of_kernels_says_what_this_one_has() -> Result<()> {
    // First, so that the table can be written from what is told.
    for feature in Feature::ALL {
        tell_feature(feature)?;
    }
    let name = uname()?;
    let release = name.release().to_string_lossy();
    let version: Vec<_> = release.split('.').take(2).collect();
    let table = table();
    let head = table.first().context(REMEDY)?;
    let Some(column) = head.iter().position(|cell| *cell == version.join(".")) else {
        return Ok(());
    };
    for feature in Feature::ALL {
        let row = table.iter().find(|row| row[0] == feature.name());
        let documented = row.and_then(|row| row.get(column)).copied();
        let here = if feature.is_here()? { "yes" } else { "no" };
        ensure!(
            documented == Some(here),
            "{} on {release}: {here}, and not {documented:?}: {REMEDY}",
            feature.name()
        );
    }
    Ok(())
}

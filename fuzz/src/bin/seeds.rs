//! Writes what each target starts from into directories of its own below the one named.

use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let root = env::args_os().nth(1).map(PathBuf::from);
    let root = root.context("name the directory that the seeds go to")?;
    for target in mcr_fuzz::TARGETS {
        let directory = root.join(target.name);
        let place = || directory.display().to_string();
        fs::create_dir_all(&directory).with_context(place)?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(directory.join(format!("{number:04}")), seed).with_context(place)?;
        }
    }
    Ok(())
}

//! All that was measured in one start of the benchmark.

use std::{env, fmt, fs, path::Path, thread};

use anyhow::{Context as _, Result};
use nix::sys::utsname::uname;
use serde_json::{Value, json};

use crate::{
    change,
    cost::{self, Effort, Entry, Outcome},
    goals::{self, Group},
    latency, ring, table, throughput,
    verdict::{self, Verdict},
};

/// Results, with what is needed to get them again.
pub(crate) struct Report {
    command: String,
    kernel: String,
    cpus: usize,
    /// What frames cost, by name of the group.
    pub(crate) costs: Vec<(String, Outcome)>,
    /// Delays.
    pub(crate) latencies: Vec<(latency::Options, Vec<latency::Row>)>,
    throughputs: Vec<throughput::Row>,
    ring: Option<ring::Outcome>,
    change: Option<change::Times>,
    verdicts: Vec<Verdict>,
}

impl Report {
    /// An empty one.
    pub(crate) fn new() -> Result<Self> {
        let kernel = uname().context("the kernel has no name")?;
        let arguments = env::args().skip(1);
        let command: Vec<_> = ["cargo xtask bench --".to_owned()]
            .into_iter()
            .chain(arguments)
            .collect();
        Ok(Self {
            command: command.join(" "),
            kernel: kernel.release().to_string_lossy().into_owned(),
            cpus: thread::available_parallelism()?.get(),
            costs: Vec::new(),
            latencies: Vec::new(),
            throughputs: Vec::new(),
            ring: None,
            change: None,
            verdicts: Vec::new(),
        })
    }

    /// Measures a group of goals.
    pub(crate) fn group(&mut self, group: &Group, effort: Effort) {
        let outcome = self.costs(group.name, &group.entries(), effort);
        let verdicts: Vec<_> = group
            .goals
            .iter()
            .map(|goal| goal.verdict(&outcome, group.name))
            .collect();
        self.verdicts.extend(verdicts);
    }

    /// Measures what frames cost.
    pub(crate) fn costs(&mut self, name: &str, entries: &[Entry], effort: Effort) -> Outcome {
        let outcome = cost::measure(entries, effort);
        table::print(&outcome);
        self.costs.push((name.to_owned(), outcome.clone()));
        outcome
    }

    /// Measures delays.
    pub(crate) fn latency(&mut self, options: &latency::Options) {
        let rows = latency::measure(options);
        latency::print(options, &rows);
        if goals::is_containers(options) {
            self.verdicts.push(verdict::containers_verdict(&rows));
        }
        self.latencies.push((options.clone(), rows));
    }

    /// Searches for rates without loss.
    pub(crate) fn throughput(&mut self, options: &throughput::Options) {
        let rows = throughput::measure(options);
        throughput::print(options, &rows);
        self.throughputs.extend(rows);
    }

    /// Measures packet sockets.
    pub(crate) fn ring(&mut self, options: &ring::Options) -> Result<()> {
        let outcome = ring::measure(options)?;
        ring::print(options, &outcome);
        self.verdicts.push(verdict::ring_verdict(&outcome));
        self.ring = Some(outcome);
        Ok(())
    }

    /// Measures changes.
    pub(crate) fn change(&mut self, options: &change::Options) -> Result<()> {
        let times = change::run(options)?;
        self.verdicts.extend(verdict::change_verdicts(&times));
        self.change = Some(times);
        Ok(())
    }

    /// Prints which goals are reached.
    pub(crate) fn finish(&self) {
        if !self.verdicts.is_empty() {
            println!("\ngoals, by medians of pairs (least to most)");
        }
        for verdict in &self.verdicts {
            println!("  {verdict}");
        }
    }

    /// What was measured, for programs.
    pub(crate) fn write_json(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.json())?;
        fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))
    }

    fn json(&self) -> Value {
        let costs = self.costs.iter();
        let latencies = self.latencies.iter();
        let ring = self.ring.as_ref();
        json!({
            "command": self.command,
            "kernel": self.kernel,
            "cpus": self.cpus,
            "costs": costs.map(|(name, outcome)| json!({
                "name": name,
                "rows": outcome.rows.iter().map(cost_row).collect::<Value>(),
            })).collect::<Value>(),
            "latencies": latencies.map(|(options, rows)| json!({
                "fan_out": options.fan_out(),
                "rate": options.rate(),
                "rows": rows.iter().map(latency_row).collect::<Value>(),
            })).collect::<Value>(),
            "throughputs": self.throughputs.iter().map(|row| json!({
                "variant": row.variant.to_string(),
                "fan_out": row.fan_out,
                "rates": row.rates.as_ref().ok(),
                "reason": row.rates.as_ref().err(),
            })).collect::<Value>(),
            "ring": ring.map(|ring| json!({
                "plain": ring.plain.iter().map(overload).collect::<Value>(),
                "mcr": ring.mcr.iter().map(overload).collect::<Value>(),
            })),
            "change": self.change.map(|times| json!({
                "all_ms": times.all.median,
                "one_ms": times.one.median,
            })),
            "goals": self.verdicts.iter().map(|verdict| json!({
                "name": verdict.name,
                "measured": verdict.what,
                "reached": verdict.reached,
            })).collect::<Value>(),
        })
    }
}

fn cost_row(row: &cost::Row) -> Value {
    let scene = &row.entry.scene;
    let name = |value: &dyn fmt::Debug| format!("{value:?}").to_lowercase();
    json!({
        "variant": row.entry.variant.to_string(),
        "egress": name(&scene.egress),
        "fan_out": scene.fan_out,
        "size": scene.size,
        "routes": scene.routes,
        "streams": scene.streams,
        "generator": name(&scene.generator),
        "sink": name(&scene.sink),
        "microseconds": row.costs.as_ref().ok(),
        "reason": row.costs.as_ref().err(),
        "sent": row.sent,
        "wanted": row.wanted,
        "arrived": row.arrived,
    })
}

fn latency_row(row: &latency::Row) -> Value {
    let delays = row.delays.as_deref().unwrap_or_default();
    json!({
        "variant": row.variant.to_string(),
        "reason": row.delays.as_ref().err(),
        "p50_ns": latency::at(delays, 500),
        "p99_ns": latency::at(delays, 990),
        "p999_ns": latency::at(delays, 999),
        "most_ns": latency::at(delays, 1000),
        "skew_p50_ns": latency::at(&row.skews, 500),
        "skew_p99_ns": latency::at(&row.skews, 990),
        "wanted": row.wanted,
        "lost": row.lost,
    })
}

fn overload(result: &ring::Overload) -> Value {
    json!({"mpps": result.rate, "cpu_microseconds": result.cpu})
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\nLinux {}, {} CPUs",
            self.command, self.kernel, self.cpus
        )
    }
}

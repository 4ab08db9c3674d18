//! What a process holds in the kernel, and what is left of it.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv6Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{Netns, Process};

/// How long to wait before looking again: the kernel frees these by its own clock, without an
/// event.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The ids of eBPF objects that a process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    /// Links in the sense of eBPF: attachments that end with their descriptor.
    attachments: BTreeSet<u32>,
}

impl Held {
    /// What `process` holds now by its descriptors.
    pub fn by(process: &Process) -> Result<Self> {
        let mut held = Self {
            programs: BTreeSet::new(),
            maps: BTreeSet::new(),
            attachments: BTreeSet::new(),
        };
        let descriptors = format!("/proc/{}/fdinfo", process.id());
        for entry in fs::read_dir(&descriptors).with_context(|| descriptors.clone())? {
            // A descriptor may be closed meanwhile.
            let Ok(text) = fs::read_to_string(entry?.path()) else {
                continue;
            };
            for line in text.lines() {
                let mut words = line.split_whitespace();
                let id = |word: Option<&str>| word.and_then(|word| word.parse::<u32>().ok());
                match words.next() {
                    Some("prog_id:") => held.programs.extend(id(words.next())),
                    Some("map_id:") => held.maps.extend(id(words.next())),
                    Some("link_id:") => held.attachments.extend(id(words.next())),
                    _ => {}
                }
            }
        }
        Ok(held)
    }

    /// Whether it holds no program and no map.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty() && self.maps.is_empty()
    }

    /// The ids of the programs it holds.
    pub fn programs(&self) -> impl Iterator<Item = u32> {
        self.programs.iter().copied()
    }

    /// The ids of programs' attachments that it holds, as on TCX: one that is made again has another.
    #[must_use]
    pub fn attached(&self) -> &BTreeSet<u32> {
        &self.attachments
    }

    /// To how many places it holds a program attached by a descriptor, as on TCX.
    #[must_use]
    pub fn attachments(&self) -> usize {
        self.attachments.len()
    }

    /// Waits until the kernel has none of these any more.
    pub fn wait_gone(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = self.left();
            if left.is_empty() {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "still in the kernel after {timeout:?}: {left:?}"
            );
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Those of them that the kernel still has.
    fn left(&self) -> Self {
        let mut left = Self {
            programs: BTreeSet::new(),
            maps: BTreeSet::new(),
            attachments: BTreeSet::new(),
        };
        for program in aya::programs::loaded_programs() {
            // One that goes while the list is read is gone.
            if let Ok(program) = program
                && self.programs.contains(&program.id())
            {
                left.programs.insert(program.id());
            }
        }
        for map in aya::maps::loaded_maps() {
            if let Ok(map) = map
                && self.maps.contains(&map.id())
            {
                left.maps.insert(map.id());
            }
        }
        left
    }
}

impl Netns {
    /// Runs `tc` with these words and gives what it prints.
    pub fn tc(&self, words: &str) -> Result<String> {
        let output = self.tool("tc", words, None)?;
        String::from_utf8(output.stdout).context("tc printed no valid UTF-8")
    }

    /// A file below `/proc/net`, as this namespace sees it.
    pub fn proc_net(&self, name: &str) -> Result<String> {
        self.run(|| {
            let path = format!("/proc/thread-self/net/{name}");
            fs::read_to_string(&path).with_context(|| path.clone())
        })
    }

    /// The IPv4 groups joined on `link`.
    pub fn groups_v4(&self, link: &str) -> Result<BTreeSet<std::net::Ipv4Addr>> {
        let mut groups = BTreeSet::new();
        let mut of_link = false;
        for line in self.proc_net("igmp")?.lines().skip(1) {
            let mut words = line.split_whitespace();
            if line.starts_with(['\t', ' ']) {
                let group = words.next().context("a line without a group")?;
                let group = u32::from_str_radix(group, 16).context("a strange group")?;
                if of_link {
                    groups.insert(u32::from_be(group).into());
                }
            } else {
                of_link = words.nth(1).is_some_and(|name| name == link);
            }
        }
        Ok(groups)
    }

    /// The IPv6 groups joined on `link`, without those that every host joins by itself, some of them
    /// only when it has an address: all nodes and solicited nodes (RFC 4291, section 2.8).
    pub fn groups_v6(&self, link: &str) -> Result<BTreeSet<Ipv6Addr>> {
        let mut groups = BTreeSet::new();
        for line in self.proc_net("igmp6")?.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let [_, name, group, ..] = words[..] else {
                bail!("a strange line: {line}");
            };
            let group: Ipv6Addr = u128::from_str_radix(group, 16)
                .context("a strange group")?
                .into();
            let by_itself = matches!(
                group.segments(),
                [0xff01 | 0xff02, 0, 0, 0, 0, 0, 0, 1]
                    | [0xff02, 0, 0, 0, 0, 1, 0xff00..=0xffff, _]
            );
            if name == link && !by_itself {
                groups.insert(group);
            }
        }
        Ok(groups)
    }
}

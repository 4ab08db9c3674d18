//! Which kernel modules a machine gets.

use std::collections::{BTreeMap, BTreeSet};

/// What tests make links, queues and filters of, and what may change how frames pass. A kernel that
/// lacks one has tests skipped.
pub(super) const WANTED: [&str; 18] = [
    "8021q",
    "act_gact",
    "act_mirred",
    "bonding",
    "br_netfilter",
    "bridge",
    "cls_bpf",
    "cls_matchall",
    "cls_u32",
    "dummy",
    "ipvlan",
    "macvlan",
    "nf_tables",
    "sch_ingress",
    "sch_netem",
    "tun",
    "veth",
    "vxlan",
];

/// The files of the modules called `wanted` and of all that they need, by `modules.dep`
/// (modules.dep(5)), and the names of those that there are not.
pub(super) fn files<'a>(
    modules_dep: &'a str,
    wanted: &[&'a str],
) -> (BTreeSet<&'a str>, Vec<&'a str>) {
    let lines = modules_dep.lines().filter_map(|line| line.split_once(':'));
    let known: BTreeMap<&str, (&str, &str)> = lines
        .map(|(file, needed)| (name(file), (file, needed)))
        .collect();
    let mut files = BTreeSet::new();
    let mut missing = Vec::new();
    for module in wanted {
        match known.get(module) {
            // Its line names what its dependencies need as well.
            Some((file, needed)) => {
                files.insert(*file);
                files.extend(needed.split_whitespace());
            }
            None => missing.push(*module),
        }
    }
    (files, missing)
}

/// The name of the module in a file.
fn name(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split(".ko").next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_along() {
        let dep = "kernel/net/bridge/bridge.ko.xz: kernel/net/802/stp.ko.xz kernel/net/llc/llc.ko.xz\n\
                   kernel/net/802/stp.ko.xz: kernel/net/llc/llc.ko.xz\n\
                   kernel/net/llc/llc.ko.xz:\n\
                   kernel/drivers/net/veth.ko:\n";
        let (files, missing) = super::files(dep, &["bridge", "bonding"]);
        let expected = [
            "kernel/net/802/stp.ko.xz",
            "kernel/net/bridge/bridge.ko.xz",
            "kernel/net/llc/llc.ko.xz",
        ];
        assert!(files.into_iter().eq(expected));
        assert_eq!(missing, ["bonding"]);
        assert_eq!(name("kernel/drivers/net/veth.ko"), "veth");
    }
}

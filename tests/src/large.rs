//! A rule file as large as networks need one: 100 000 groups and 1 000 ranges.

use std::fmt::Write as _;

/// Relays with so many groups each, from `in0` to `out0`; the first one's are 239.16.0.0 to
/// 239.16.0.249, the next one's 239.16.1.0 and so on.
const EXACT: [usize; 2] = [400, 250];
/// Prefixes of groups, of ports and of sources.
const RANGES: [usize; 3] = [400, 300, 300];

/// The relays, each a YAML mapping on one line: `exact-0` to `exact-399`, and to `out1`
/// - `groups`: 239.48.0.0/28, 239.48.0.32/28 and so on, beside 239.16.7.0/24,
/// - `ports` of 239.16.8.0/22: 10000-10009, 10020-10029 and so on,
/// - `sources` of 239.16.16.0/24: 10.1.0.0/30, 10.1.0.8/30 and so on.
///
/// None is joined.
#[must_use]
pub fn large() -> Vec<String> {
    let mut relays = Vec::new();
    for relay in 0..EXACT[0] {
        let groups = (0..EXACT[1]).map(|group| format!("239.{}.{group}", block(relay)));
        let groups: Vec<_> = groups.collect();
        relays.push(format!(
            "{{name: exact-{relay}, from: in0, to: out0, groups: [{}], join: false}}",
            groups.join(", ")
        ));
    }
    let [groups, ports, sources] = RANGES;
    let list = |count: usize, entry: &dyn Fn(usize) -> String| {
        let mut list = String::new();
        for number in 0..count {
            // Writing to a string cannot fail.
            let _ = write!(list, "{}, ", entry(number));
        }
        list
    };
    let groups = list(groups, &|n| format!("239.48.{}.{}/28", n / 8, n % 8 * 32));
    let ports = list(ports, &|n| {
        format!("{}-{}", 10_000 + n * 20, 10_009 + n * 20)
    });
    let sources = list(sources, &|n| format!("10.1.{}.{}/30", n / 32, n % 32 * 8));
    let start = "from: in0, to: out1, join: false";
    relays.extend([
        format!("{{name: groups, {start}, groups: [239.16.7.0/24, {groups}]}}"),
        format!("{{name: ports, {start}, groups: 239.16.8.0/22, ports: [{ports}]}}"),
        format!("{{name: sources, {start}, groups: 239.16.16.0/24, sources: [{sources}]}}"),
    ]);
    relays
}

/// The middle of the addresses of a relay's groups.
fn block(relay: usize) -> String {
    format!("{}.{}", 16 + relay / 256, relay % 256)
}

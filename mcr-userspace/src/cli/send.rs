//! `mcr send`.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::{FOUND, duration, note, print};
use crate::traffic::group::Group;
use crate::traffic::options::SendOptions;
use crate::traffic::payload::Payload;
use crate::traffic::rate::{Rate, human_bits};
use crate::traffic::send::{SendObserver, SendSummary, Started, send};
use crate::traffic::stop::Stop;

const AFTER_HELP: &str = "\
Examples:
  mcr send 239.1.1.1:5000 --from eth0
  mcr send 239.1.1.1:5000 --from eth0 --rate 1000pps --size 1200 --count 10000
  mcr send '[ff3e::1]:5000' --from br0 --rate 10mbps --for 10s --wait-acks
  mcr send '[ff02::fb%br0]:5353' --payload hello --count 1
  tail -f events.log | mcr send 239.1.1.1:5000 --from br0 --payload -

Datagrams are numbered, so that `mcr recv` can report loss, order and duplicates; with --payload
they carry text alone, for any program that reads UDP. Each goes to receivers on this host, too.
No route is needed when --from is given.

With --count, receivers are told how many datagrams to expect and so notice when the last ones
are lost. With --for, or ended by Ctrl-C, exactly the datagrams reported as sent went out; only a
sender interrupted before its --count adds one small datagram that says so.

Standard output gets the summary, with --json one object with the fields group, link, source,
stream, sent, bytes, seconds, pps, bits_per_second, acks (a list of address, acks, rtt_min_ms,
rtt_mean_ms, rtt_max_ms) and acks_unlisted.

Exit codes: 0; 1 with --wait-acks if nobody answered; 64 usage; 71 operating system; 77 permission.";

/// Send multicast datagrams, to try things out
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct SendArgs {
    /// Where to send: `239.1.1.1:5000`, `[ff3e::1]:5000` or `[ff02::fb%eth0]:5353`
    #[arg(value_name = "GROUP:PORT")]
    group: Group,

    /// The interface to send from [default: the one the routing table names]
    #[arg(long, value_name = "LINK")]
    from: Option<String>,

    /// How fast: datagrams (10pps, 50kpps) or bits of UDP payload (400kbps, 10mbps, 1gbps) in a
    /// second, or max [default: 10pps; with `--payload -` as lines come]
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,

    /// Bytes of UDP payload in each datagram, 48 to 65507; above the MTU it is sent in fragments
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 64,
        conflicts_with = "payload"
    )]
    size: usize,

    /// End after N datagrams [default: go on until Ctrl-C]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// End after this time: 500ms, 10s, 1m
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,

    /// TTL or hop limit, 0 to 255; 0 stays on this host
    #[arg(long, value_name = "HOPS", default_value_t = 1)]
    ttl: u8,

    /// The source address, one of this host's [default: chosen by the kernel]
    #[arg(long, value_name = "IP")]
    source: Option<IpAddr>,

    /// Send exactly this text; `-` sends each line of standard input
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    payload: Option<String>,

    /// Show who answers (`mcr recv --ack`), listening this long after the last datagram [default:
    /// 1s]
    #[arg(long, value_name = "DURATION", value_parser = duration, num_args = 0..=1, default_missing_value = "1s")]
    wait_acks: Option<Duration>,

    /// Print the summary as one JSON object
    #[arg(long)]
    json: bool,

    /// Report each second on standard error even if that is not a terminal
    #[arg(long)]
    progress: bool,
}

/// Sends, and prints the summary.
pub(super) fn run(args: SendArgs) -> anyhow::Result<ExitCode> {
    let payload = match args.payload {
        None => Payload::Sequenced(args.size),
        Some(dash) if dash == "-" => Payload::StandardInput,
        Some(text) => Payload::Text(text),
    };
    let default_rate = match payload {
        Payload::StandardInput => Rate::Max,
        Payload::Sequenced(_) | Payload::Text(_) => Rate::Datagrams(10_000),
    };
    let options = SendOptions {
        group: args.group,
        from: args.from,
        source: args.source,
        payload,
        rate: args.rate.unwrap_or(default_rate),
        count: args.count,
        duration: args.duration,
        ttl: args.ttl,
        wait_acks: args.wait_acks,
    };
    let stop = Stop::on_signals().context("cannot take signals")?;
    let mut console = Console {
        group: options.group.to_string(),
        progress: args.progress || io::stderr().is_terminal(),
    };
    let summary = send(&options, &stop, &mut console)?;
    let text = if args.json {
        serde_json::to_string(&summary)? + "\n"
    } else {
        describe(&summary, options.wait_acks.is_some())
    };
    print(&text).context("cannot write the summary")?;
    let unheard = options.wait_acks.is_some() && summary.acks.is_empty();
    Ok(if unheard {
        FOUND.into()
    } else {
        ExitCode::SUCCESS
    })
}

struct Console {
    group: String,
    progress: bool,
}

impl SendObserver for Console {
    fn started(&mut self, started: &Started) {
        let link = started
            .link
            .as_deref()
            .unwrap_or("the interface of the route");
        let source = started
            .source
            .map_or_else(|| "?".to_owned(), |source| source.to_string());
        note(&format!(
            "sending to {} from {link}, source {source}",
            self.group
        ));
        if started.source.is_some_and(|source| source.is_unspecified()) {
            note(&format!(
                "{link} has no address, so the source is {source} and receivers throw the datagrams away: give it an address"
            ));
        }
    }

    fn progress(&mut self, sent: u64, elapsed: Duration) {
        if self.progress {
            note(&format!("{:.0} s: {sent} sent", elapsed.as_secs_f64()));
        }
    }
}

fn describe(summary: &SendSummary, waited: bool) -> String {
    let mut text = format!(
        "sent {} datagrams, {} bytes in {:.3} s: {:.1} pps, {}\n",
        summary.sent,
        summary.bytes,
        summary.seconds,
        summary.pps,
        human_bits(summary.bits_per_second)
    );
    for ack in &summary.acks {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "answered by {}: {} of {}, round trip {:.3}/{:.3}/{:.3} ms (min/mean/max)",
            ack.address, ack.acks, summary.sent, ack.rtt_min_ms, ack.rtt_mean_ms, ack.rtt_max_ms
        );
    }
    if waited && summary.acks.is_empty() {
        let source = summary.source.as_deref().unwrap_or("the source address");
        let _ = writeln!(
            text,
            "nobody answered: either nothing arrived, or no `mcr recv --ack` listens, or no way leads back: \
             a receiver needs a unicast route to {source} and says so itself if it has none"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::answer::AckReport;

    #[test]
    fn the_summary_names_who_answered_or_that_nobody_did() {
        let mut summary = SendSummary {
            group: "239.1.1.1:5000".to_owned(),
            link: Some("eth0".to_owned()),
            source: Some("10.0.0.1:4000".to_owned()),
            stream: None,
            sent: 11,
            bytes: 1100,
            seconds: 1.0,
            pps: 10.0,
            bits_per_second: 8000.0,
            acks: Vec::new(),
            acks_unlisted: 0,
        };
        assert!(describe(&summary, true).contains("route to 10.0.0.1:4000"));
        assert_eq!(
            describe(&summary, false),
            "sent 11 datagrams, 1100 bytes in 1.000 s: 10.0 pps, 8.00 kbit/s\n"
        );
        summary.acks.push(AckReport {
            address: "10.0.0.2:5".to_owned(),
            acks: 9,
            rtt_min_ms: 0.5,
            rtt_mean_ms: 1.0,
            rtt_max_ms: 2.0,
        });
        assert!(describe(&summary, true).contains(
            "answered by 10.0.0.2:5: 9 of 11, round trip 0.500/1.000/2.000 ms (min/mean/max)"
        ));
    }
}

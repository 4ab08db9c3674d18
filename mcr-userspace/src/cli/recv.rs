//! `mcr recv`.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::{FOUND, duration, note, print};
use crate::traffic::group::Group;
use crate::traffic::options::RecvOptions;
use crate::traffic::rate::human_bits;
use crate::traffic::recv::{Ready, RecvObserver, RecvSummary, recv};
use crate::traffic::stop::Stop;
use crate::traffic::text::escape;

const AFTER_HELP: &str = "\
Examples:
  mcr recv 239.1.1.1:5000 --on br0
  mcr recv 239.1.1.1:5000 --on br0 --source 10.0.0.5 --for 10s
  mcr recv '[ff3e::1]:5000' --on br0 --count 1000 --json
  mcr recv '[ff02::fb%br0]:5353' --ack

A line with `ready` on standard error says that the group is joined. No route is needed when --on
is given. Several receivers may share a group and port of a host.

Datagrams of `mcr send` are counted; those of other programs are printed to standard output as
text, one line each with control characters escaped, behind their source if that is a terminal.

Standard output then gets the summary; if there was text and nothing else, standard error gets
it, so that text can be piped. With --json it is one object on standard output, without the text:
group, link, seconds, received (different numbered datagrams), lost, duplicates, reordered, late
(too late to be told from duplicates; counted as lost), text (datagrams of other programs), bytes,
pps, bits_per_second (of UDP payload), kernel_drops (arrived at this host, then dropped as this
program was too slow), untracked (beyond 1024 streams), acks, unanswered (a list of source,
reason), streams (a list of source, stream, received, lost, duplicates, reordered, late, total,
joined_late, bytes, pps, bits_per_second), plain (a list of source, datagrams, bytes, pps,
bits_per_second).

Lost is what is missing between the first and the last datagram of a stream; also before the first
one, if the receiver was ready when the stream began; also behind the last one, if the sender has a
--count and the rest is overdue by 100 ms when the receiver ends.

Exit codes: 0; 1 if nothing arrived or something was lost, duplicated or out of order; 64 usage;
71 operating system; 77 permission.";

/// Receive multicast datagrams, to see what arrives
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of its own on the command line"
)]
#[command(after_help = AFTER_HELP)]
pub(super) struct RecvArgs {
    /// What to join: `239.1.1.1:5000`, `[ff3e::1]:5000` or `[ff02::fb%eth0]:5353`
    #[arg(value_name = "GROUP:PORT")]
    group: Group,

    /// The interface to join on [default: the one the routing table names, mostly that of the
    /// default route]
    #[arg(long, value_name = "LINK")]
    on: Option<String>,

    /// Join for this source only (source-specific multicast) [default: any]
    #[arg(long, value_name = "IP")]
    source: Option<IpAddr>,

    /// Answer each datagram by unicast to its source address and port
    #[arg(long)]
    ack: bool,

    /// End after N different datagrams [default: go on until Ctrl-C]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// End after this time: 500ms, 10s, 1m
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,

    /// Print the summary as one JSON object, and no text
    #[arg(long)]
    json: bool,

    /// Do not print the text of datagrams
    #[arg(long, short)]
    quiet: bool,

    /// Report each second on standard error even if that is not a terminal
    #[arg(long)]
    progress: bool,
}

/// Receives, and prints the summary.
pub(super) fn run(args: RecvArgs) -> anyhow::Result<ExitCode> {
    let options = RecvOptions {
        group: args.group,
        on: args.on,
        source: args.source,
        ack: args.ack,
        count: args.count,
        duration: args.duration,
    };
    let stop = Stop::on_signals().context("cannot take signals")?;
    let mut console = Console {
        group: options.group.to_string(),
        source: options.source,
        print_text: !args.json && !args.quiet,
        prefix: io::stdout().is_terminal(),
        progress: args.progress || io::stderr().is_terminal(),
        failure: None,
    };
    let summary = recv(&options, &stop, &mut console)?;
    if let Some(error) = console.failure {
        return Err(error).context("cannot write text to standard output");
    }
    if args.json {
        print(&(serde_json::to_string(&summary)? + "\n")).context("cannot write the summary")?;
    } else if console.print_text && summary.totals.text > 0 && summary.totals.streams.is_empty() {
        for line in describe(&summary).lines() {
            note(line);
        }
    } else {
        print(&describe(&summary)).context("cannot write the summary")?;
    }
    Ok(if summary.is_clean() {
        ExitCode::SUCCESS
    } else {
        FOUND.into()
    })
}

struct Console {
    group: String,
    source: Option<IpAddr>,
    print_text: bool,
    prefix: bool,
    progress: bool,
    failure: Option<io::Error>,
}

impl RecvObserver for Console {
    fn ready(&mut self, ready: &Ready) {
        let source = self
            .source
            .map(|source| format!(" from {source}"))
            .unwrap_or_default();
        note(&format!(
            "ready: joined {}{source} on {} (receive buffer {} KiB)",
            self.group,
            ready.link,
            ready.receive_buffer >> 10
        ));
    }

    fn text(&mut self, source: SocketAddr, payload: &[u8]) -> bool {
        if !self.print_text {
            return true;
        }
        let mut out = io::stdout().lock();
        let line = escape(payload);
        let written = if self.prefix {
            writeln!(out, "{source}: {line}")
        } else {
            writeln!(out, "{line}")
        };
        match written {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => false,
            Err(error) => {
                self.failure = Some(error);
                false
            }
        }
    }

    fn cannot_answer(&mut self, source: IpAddr, reason: &str) {
        note(&format!("cannot answer {source}: {reason}"));
    }

    fn progress(&mut self, summary: &RecvSummary) {
        if self.progress {
            let totals = &summary.totals;
            note(&format!(
                "{:.0} s: {} received, {} lost, {} reordered, {} duplicates, {} text, {} dropped here, {:.0} pps",
                summary.seconds,
                totals.received,
                totals.lost,
                totals.reordered,
                totals.duplicates,
                totals.text,
                summary.kernel_drops,
                totals.pps
            ));
        }
    }
}

fn describe(summary: &RecvSummary) -> String {
    let totals = &summary.totals;
    let mut text = String::new();
    // Writing to a String cannot fail, here and below.
    for stream in &totals.streams {
        let _ = writeln!(
            text,
            "stream {} from {}: {} received, {} lost, {} reordered, {} duplicates, {:.1} pps, {}{}",
            stream.stream,
            stream.source,
            stream.received,
            stream.lost,
            stream.reordered,
            stream.duplicates,
            stream.pps,
            human_bits(stream.bits_per_second),
            if stream.joined_late {
                " (joined late)"
            } else {
                ""
            }
        );
    }
    for plain in &totals.plain {
        let _ = writeln!(
            text,
            "text from {}: {} datagrams, {} bytes, {:.1} pps, {}",
            plain.source,
            plain.datagrams,
            plain.bytes,
            plain.pps,
            human_bits(plain.bits_per_second)
        );
    }
    if totals.received + totals.text + totals.untracked == 0 {
        let _ = writeln!(
            text,
            "nothing arrived for {} on {} in {:.1} s",
            summary.group, summary.link, summary.seconds
        );
    } else {
        let _ = writeln!(
            text,
            "received {} datagrams, lost {}, reordered {}, duplicates {}, text {}: {:.1} pps, {}",
            totals.received,
            totals.lost,
            totals.reordered,
            totals.duplicates,
            totals.text,
            totals.pps,
            human_bits(totals.bits_per_second)
        );
    }
    describe_trouble(summary, &mut text);
    text
}

fn describe_trouble(summary: &RecvSummary, text: &mut String) {
    if summary.kernel_drops > 0 {
        let _ = writeln!(
            text,
            "{} datagrams reached this host and were dropped at the socket: the receiver was too slow, or its buffer too small (net.core.rmem_max)",
            summary.kernel_drops
        );
    }
    if summary.totals.late > 0 {
        let _ = writeln!(
            text,
            "{} came too late to be told from duplicates",
            summary.totals.late
        );
    }
    if summary.totals.untracked > 0 {
        let _ = writeln!(
            text,
            "{} of further streams were not followed",
            summary.totals.untracked
        );
    }
    if summary.acks > 0 {
        let _ = writeln!(text, "answered {} datagrams", summary.acks);
    }
    for unanswered in &summary.unanswered {
        let _ = writeln!(
            text,
            "could not answer {}: {}",
            unanswered.source, unanswered.reason
        );
    }
}

//! `mcr run`: relay until told to end.

use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{USAGE, duration};
use crate::{
    config::{
        flags::{FlagProblem, RelayFlags},
        load::load,
        model::{DatapathChoice, RuleFile},
    },
    control::{Instance, place::socket_path},
    daemon::{self, Settings},
    datapath::ebpf::Hook,
};

/// Where the rule file is if no other is named.
const DEFAULT_FILE: &str = "/etc/mcr/mcr.yaml";
/// The name of the relay that is given by flags.
const RELAY: &str = "command-line";

const AFTER_HELP: &str = "\
Examples:
  mcr run --config rules.yaml
  mcr run --from eth0 --to br0 --group 239.1.1.1
  mcr run --from eth0 --to br0,br1 --group 239.1.1.1,ff3e::1 --source 10.0.0.5 --port 5000
  mcr run --from eth0 --to br0 --group 239.1.0.0/24 --port 5000-5010 --limit 400mbps
  MCR_BETWEEN=br0,br1 MCR_GROUP=224.0.0.251 mcr run

One line containing `ready` on standard error says that every relay whose links exist is in force.
A link that is missing is waited for. SIGHUP reads the rule file again, SIGINT and SIGTERM end.

With --stats one JSON object a line goes to standard output, and one at the end: relays (by name:
frames, bytes, expected, limited), ingress (by link: interest, relayed, expected, left_to_tc, reasons), egress (by link: copies,
bytes, reasons). Of an ingress link, interest = relayed + the sum of reasons; over all links,
expected = copies + the sum of the reasons of egress links.

Exit codes: 0; 64 usage; 66 rule file missing; 69 another instance has the control socket;
71 operating system; 76 the kernel lacks what was demanded; 77 permission; 78 rule file.";

/// Relay multicast until SIGINT or SIGTERM
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct RunArgs {
    /// The rule file [default: /etc/mcr/mcr.yaml, unless a relay is given by flags]
    #[arg(long, value_name = "FILE", env = "MCR_CONFIG")]
    config: Option<PathBuf>,

    /// Who makes the copies, whatever the rule file says
    #[arg(long, value_name = "DATAPATH", env = "MCR_DATAPATH")]
    datapath: Option<Datapath>,

    /// The name of this instance: where its control socket is and the source address of its
    /// copies follow from it [default: default]
    #[arg(long, value_name = "NAME", env = "MCR_INSTANCE")]
    instance: Option<Instance>,

    /// Its control socket, whatever the rule file says [default: /run/mcr/NAME.sock]
    #[arg(long, value_name = "PATH", env = "MCR_SOCKET", value_parser = socket_path)]
    socket: Option<PathBuf>,

    /// Write counters to standard output this often, and at the end: 500ms, 10s, 1m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    stats: Option<Duration>,

    /// The TC hook, to try the older one on a kernel that has both
    #[arg(long, value_name = "HOOK", hide = true)]
    tc_hook: Option<TcHook>,

    #[command(flatten)]
    relay: RelayArgs,
}

/// One relay without a rule file. Lists are separated by commas
#[derive(Debug, Args)]
#[command(next_help_heading = "One relay without a rule file (lists are separated by commas)")]
struct RelayArgs {
    /// Ingress links
    #[arg(long, value_name = "LINKS", env = "MCR_FROM", value_delimiter = ',')]
    from: Vec<String>,
    /// Egress links
    #[arg(long, value_name = "LINKS", env = "MCR_TO", value_delimiter = ',')]
    to: Vec<String>,
    /// Links to relay between, every one to every other, instead of --from and --to
    #[arg(long, value_name = "LINKS", env = "MCR_BETWEEN", value_delimiter = ',')]
    between: Vec<String>,
    /// Groups or prefixes of them, IPv4 or IPv6, or broadcast
    #[arg(long, value_name = "GROUPS", env = "MCR_GROUP", value_delimiter = ',')]
    group: Vec<String>,
    /// Only from these sources, addresses or prefixes [default: any]
    #[arg(
        long,
        value_name = "ADDRESSES",
        env = "MCR_SOURCE",
        value_delimiter = ','
    )]
    source: Vec<String>,
    /// Only to these UDP ports or ranges such as 5000-5010 [default: any]
    #[arg(long, value_name = "PORTS", env = "MCR_PORT", value_delimiter = ',')]
    port: Vec<String>,
    /// IP protocols, by name or number, or any [default: udp]
    #[arg(
        long,
        value_name = "PROTOCOLS",
        env = "MCR_PROTOCOL",
        value_delimiter = ','
    )]
    protocol: Vec<String>,
    /// VLANs: untagged, any or 1 to 4094 [default: untagged]
    #[arg(long, value_name = "VLANS", env = "MCR_VLAN", value_delimiter = ',')]
    vlan: Vec<String>,
    /// TTL or hop limit of copies: keep, decrement or 1 to 255 [default: keep]
    #[arg(long, value_name = "TTL", env = "MCR_TTL")]
    ttl: Option<String>,
    /// Source address of copies: auto, relay, egress or keep [default: auto]
    #[arg(long, value_name = "MODE", env = "MCR_SOURCE_MAC")]
    source_mac: Option<String>,
    /// Whether this host still sees the frames: keep or drop [default: keep]
    #[arg(long, value_name = "MODE", env = "MCR_LOCAL")]
    local: Option<String>,
    /// How much is relayed at most, frames or bits a second: 100kpps, 400mbps [default: no limit]
    #[arg(long, value_name = "RATE", env = "MCR_LIMIT")]
    limit: Option<String>,
    /// Whether frames are relayed too that this host sends out of the ingress links: true or
    /// false [default: false]
    #[arg(long, value_name = "BOOL", env = "MCR_HOST_FRAMES")]
    host_frames: Option<String>,
    /// Whether the groups are joined on the ingress links: true or false [default: true]
    #[arg(long, value_name = "BOOL", env = "MCR_JOIN")]
    join: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Datapath {
    /// The best one there is
    Auto,
    /// The XDP program in the kernel
    Xdp,
    /// The TC program in the kernel
    Tc,
    /// Packet sockets
    Afpacket,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TcHook {
    Tcx,
    Clsact,
}

/// What is wrong with the flags of a relay.
#[derive(Debug)]
struct FlagErrors(Vec<FlagProblem>);

impl fmt::Display for FlagErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\nmcr: "))
    }
}

/// Relays.
pub(super) fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    log_to_standard_error();
    let flags = args.relay.flags();
    let choice = args.datapath.map(DatapathChoice::from);
    let (rules, file) = if flags.any() {
        if args.config.is_some() {
            return Ok(refuse(
                "a relay is given by flags (or MCR_… variables) as well as a rule file: use one of them",
            ));
        }
        match flags.relay(RELAY, choice.unwrap_or_default()) {
            Ok((relay, warnings)) => {
                for warning in &warnings {
                    tracing::warn!("{}: {}", warning.flag, warning.problem);
                }
                (RuleFile::of(vec![relay]), None)
            }
            Err(problems) => return Ok(refuse(&FlagErrors(problems).to_string())),
        }
    } else {
        let path = args.config.unwrap_or_else(|| DEFAULT_FILE.into());
        let loaded = load(&path)?;
        if !loaded.warnings.is_empty() {
            let _ = writeln!(io::stderr(), "{}", loaded.warnings);
        }
        (loaded.rules, Some(path))
    };
    let settings = Settings {
        datapath_of_file: Some(rules.datapath).filter(|_| file.is_some() && choice.is_none()),
        relays: rules.relays,
        file,
        datapath: choice.unwrap_or(rules.datapath),
        limits: rules.limits,
        hook: args.tc_hook.map(Hook::from),
        named: args.instance.is_some(),
        instance: args.instance.unwrap_or_default(),
        socket: args.socket.or_else(|| rules.control.clone()),
        socket_of_file: rules.control,
        statistics: args.stats,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start the event loop")?;
    runtime.block_on(daemon::run(settings))?;
    Ok(ExitCode::SUCCESS)
}

fn refuse(message: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "mcr: {message}");
    USAGE.into()
}

/// `RUST_LOG` says how much; by default everything from information on.
fn log_to_standard_error() {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    let logger = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        // Where nobody listens any more, or the disk is full, relaying goes on without a word.
        .log_internal_errors(false)
        .with_env_filter(filter);
    // Only a second logger could fail, and there is none.
    let _ = logger.try_init();
}

impl RelayArgs {
    fn flags(self) -> RelayFlags {
        RelayFlags {
            from: self.from,
            to: self.to,
            between: self.between,
            group: self.group,
            source: self.source,
            port: self.port,
            protocol: self.protocol,
            vlan: self.vlan,
            ttl: self.ttl,
            source_mac: self.source_mac,
            local: self.local,
            limit: self.limit,
            host_frames: self.host_frames,
            join: self.join,
        }
    }
}

impl From<Datapath> for DatapathChoice {
    fn from(datapath: Datapath) -> Self {
        match datapath {
            Datapath::Auto => Self::Auto,
            Datapath::Xdp => Self::Xdp,
            Datapath::Tc => Self::Tc,
            Datapath::Afpacket => Self::AfPacket,
        }
    }
}

impl From<TcHook> for Hook {
    fn from(hook: TcHook) -> Self {
        match hook {
            TcHook::Tcx => Self::Tcx,
            TcHook::Clsact => Self::Clsact,
        }
    }
}

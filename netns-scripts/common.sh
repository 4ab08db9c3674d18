# shellcheck shell=sh
# What the topologies of this directory have in common. Read by them, not run.
#
# Before reading it a script sets:
#   HERE        the directory of the script
#   NAMESPACES  names of its namespaces, separated by spaces
#   SUMMARY     what it is, for the usage
# and afterwards defines
#   build       makes them, with everything in them
#   explain     prints the picture and the commands to try

# Exit codes as in sysexits.h, the same that mcr uses.
EX_USAGE=64
EX_UNAVAILABLE=69
EX_OSERR=71
EX_NOPERM=77

SELF=$(basename "$0")

say() {
    printf '%s: %s\n' "$SELF" "$1" >&2
}

usage() {
    cat <<TEXT
usage: $SELF up|down|show

$SUMMARY

  up    make it, and print what to try; harmless if it is up already
  down  end what runs in it and remove it; harmless if it is not there
  show  print links, addresses, bridge memberships and what runs in it

Namespaces: $NAMESPACES
Exit codes: 0; 1 show: it is not up; 64 usage; 69 a tool is missing; 71 the
system refused something; 77 not root.
TEXT
}

# The mcr to print in commands: the one installed, or the one built here.
find_mcr() {
    if command -v mcr >/dev/null; then
        echo mcr
        return
    fi
    for profile in release debug; do
        if [ -x "$HERE/../target/$profile/mcr" ]; then
            printf '%s/mcr\n' "$(cd "$HERE/../target/$profile" && pwd)"
            return
        fi
    done
    say "there is no mcr yet: \`cargo build --release\` makes target/release/mcr"
    echo mcr
}

exists() {
    ip netns list | cut -d' ' -f1 | grep -qx "$1"
}

# How many of the namespaces exist: all, some or none.
state() {
    there=0 missing=0
    for namespace in $NAMESPACES; do
        if exists "$namespace"; then
            there=$((there + 1))
        else
            missing=$((missing + 1))
        fi
    done
    case $there:$missing in
    0:*) echo none ;;
    *:0) echo all ;;
    *) echo some ;;
    esac
}

# in_ns NAMESPACE COMMAND...: runs a command there.
in_ns() {
    ip netns exec "$@"
}

# namespace NAME: a new one whose loopback is up.
namespace() {
    ip netns add "$1"
    ip -n "$1" link set lo up
}

# relay_host NAME: a namespace where nothing lets multicast pass: reverse paths are checked
# strictly and the firewall forwards nothing.
relay_host() {
    namespace "$1"
    in_ns "$1" sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1 \
        net.ipv4.ip_forward=1
    if command -v nft >/dev/null; then
        in_ns "$1" nft 'table inet filter {
            chain forward { type filter hook forward priority filter; policy drop; }
        }'
    else
        say "there is no nft: FORWARD stays open in $1"
    fi
}

# veth NAMESPACE LINK NAMESPACE LINK: a cable between two namespaces.
veth() {
    ip -n "$1" link add "$2" type veth peer name "$4" netns "$3"
    ip -n "$1" link set "$2" up
    ip -n "$3" link set "$4" up
}

# bridge NAMESPACE LINK: as the kernel makes them, with snooping on and no querier.
bridge() {
    ip -n "$1" link add "$2" type bridge forward_delay 0
    ip -n "$1" link set "$2" up
}

# addresses NAMESPACE LINK IPV4 IPV6
addresses() {
    ip -n "$1" address add "$3" dev "$2"
    # Usable at once, without first asking whether somebody has it.
    ip -n "$1" address add "$4" dev "$2" nodad
}

up() {
    case $(state) in
    all)
        say "it is up already"
        explain
        return
        ;;
    some)
        say "it is there in part: removing that first"
        down
        ;;
    esac
    trap 'trap - EXIT; say "that failed: removing what was made"; down; exit "$EX_OSERR"' EXIT
    trap 'exit "$EX_OSERR"' HUP INT TERM
    build
    trap - EXIT HUP INT TERM
    explain
}

# Ends what runs in a namespace: while a process is there, the namespace is, too.
end_processes() {
    for pid in $(ip netns pids "$1"); do
        say "ending $(cat "/proc/$pid/comm" 2>/dev/null || echo process) ($pid) in $1"
        kill "$pid" 2>/dev/null || :
    done
    tries=50
    while [ -n "$(ip netns pids "$1")" ] && [ "$tries" -gt 0 ]; do
        tries=$((tries - 1))
        sleep 0.1
    done
    for pid in $(ip netns pids "$1"); do
        kill -KILL "$pid" 2>/dev/null || :
    done
}

down() {
    for namespace in $NAMESPACES; do
        if exists "$namespace"; then
            end_processes "$namespace"
            ip netns delete "$namespace" || exit "$EX_OSERR"
        fi
    done
}

show() {
    if [ "$(state)" = none ]; then
        say "it is not up"
        exit 1
    fi
    for namespace in $NAMESPACES; do
        exists "$namespace" || continue
        printf '== %s\n' "$namespace"
        ip -n "$namespace" -brief link show
        ip -n "$namespace" -brief address show scope global
        if [ -n "$(ip -n "$namespace" -brief link show type bridge)" ]; then
            in_ns "$namespace" bridge mdb show
        fi
        for pid in $(ip netns pids "$namespace"); do
            printf 'running: %s (%s)\n' "$(tr '\0' ' ' <"/proc/$pid/cmdline")" "$pid"
        done
    done
}

main() {
    case ${1-} in
    -h | --help | help)
        usage
        exit 0
        ;;
    esac
    case $#:${1-} in
    1:up | 1:down | 1:show) ;;
    *)
        usage >&2
        exit "$EX_USAGE"
        ;;
    esac
    if [ "$(id -u)" -ne 0 ]; then
        say "network namespaces need root: sudo $0 $1"
        exit "$EX_NOPERM"
    fi
    for tool in ip sysctl; do
        if ! command -v "$tool" >/dev/null; then
            say "there is no $tool: apt-get install iproute2 procps"
            exit "$EX_UNAVAILABLE"
        fi
    done
    "$1"
}

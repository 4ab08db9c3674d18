#!/usr/bin/busybox sh
# The first program of a machine for tests. It runs each binary in /tests with /arguments, and says on the
# console, in lines that begin with @vm, what xtask is to know; then it turns the machine off.
export PATH=/usr/sbin:/usr/bin:/busybox HOME=/root TMPDIR=/tmp
busybox mkdir -p /busybox && busybox --install -s /busybox
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /sys/fs/bpf
mount -t devpts pts /dev/pts
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
dmesg -n 1
ip link set lo up
# Tests that begin side by side shall not have to wait for them.
while read -r module; do modprobe "$module"; done < /modules
ulimit -n 65536
echo "@vm kernel $(uname -r)"

# Seconds since the start.
now() { read -r seconds _ < /proc/uptime; echo "${seconds%.*}"; }

export MCR_SLOWER=10 MCR_BIN=/usr/bin/mcr MCR_REPORT=/tmp/report RUST_BACKTRACE=0
set --
while read -r argument; do set -- "$@" "$argument"; done < /arguments
for test in /tests/*; do
    name=${test##*/}
    : > $MCR_REPORT
    echo "@vm begin $name"
    began=$(now)
    # Tests wait more than they work, so two run at a time. Only what hangs takes that long.
    cd /tmp && timeout -s KILL 1200 "$test" --color never --test-threads 2 "$@" 2>&1
    code=$?
    sed 's/^/@vm /' $MCR_REPORT
    echo "@vm end $name $code $(($(now) - began))"
done
if dmesg | grep -q -e 'BUG:' -e 'WARNING: CPU'; then
    dmesg | grep -A 20 -e 'BUG:' -e 'WARNING: CPU' | sed 's/^/@vm complaint /'
fi
echo "@vm done"
poweroff -f

#!/usr/bin/env bash
# `make demo` and `make test` of the current commit on a system where nothing but git and make was added to the smallest Debian.
#
#   tools/bare_machine.sh [--demo-only] [--user] [--base FOLDER] [--keep] [SUITE [ARGS of make...]]
#
#   SUITE         bookworm (the default), trixie, or whatever debootstrap can make; MIRROR=... where it is not on the default mirror
#   ARGS          instead of `demo` and `test`, each a run of make: tools/bare_machine.sh trixie demo 'test ARGS=tests/cli/test_commands.py'
#   --demo-only   make demo alone
#   --user        as a user who may not install anything: what make says then, and how soon
#   --base        a system made by `debootstrap --variant=minbase` instead of build/bare/SUITE, which is made once and kept
#   --keep        keep the copy that was run in, and say where it is
#
# Needs root, debootstrap and unshare (util-linux). What is committed is tried, not what is in the work tree. The settings of this machine
# for pip, proxies, certificates and apt's downloads hold inside too. Mounts and processes are in namespaces that end with the script.
set -euo pipefail
cd "$(dirname "$0")/.."

targets=(demo test) base='' keep='' user=''
while [[ ${1-} == --* ]]; do
    case $1 in
    --demo-only) targets=(demo) ;;
    --user) user=1 ;;
    --keep) keep=1 ;;
    --base) base=${2:?--base needs a folder} && shift ;;
    *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" && exit 2 ;;
    esac
    shift
done
suite=${1:-bookworm}
[ $# -lt 2 ] || targets=("${@:2}")
if [ "$(id -u)" != 0 ]; then
    echo "tools/bare_machine.sh needs root" >&2 && exit 1
fi

if [ -z "$base" ]; then
    base=build/bare/$suite
    if [ ! -e "$base" ]; then
        command -v debootstrap >/dev/null || { echo "tools/bare_machine.sh needs debootstrap" >&2 && exit 1; }
        mkdir -p build/bare && rm -rf "$base.part"
        # debootstrap has no script for the newest suites; that of sid does for all of Debian.
        script=/usr/share/debootstrap/scripts/$suite
        [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
        debootstrap --variant=minbase "$suite" "$base.part" "${MIRROR-}" "$script" >"build/bare/$suite.log" || {
            tail -n 5 "build/bare/$suite.log" >&2 && exit 1
        }
        mv "$base.part" "$base"
    fi
fi

mkdir -p build/bare
child=''
root=$(mktemp -d "$PWD/build/bare/run.XXXXXX")
# shellcheck disable=SC2317,SC2329 # called by the trap
finish() {
    # With unshare its child ends, and with that everything inside.
    [ -z "$child" ] || { kill -KILL "$child" && wait "$child"; } 2>/dev/null || :
    if [ -z "$keep" ]; then rm -rf --one-file-system "$root" || { sleep 1 && rm -rf --one-file-system "$root"; }; else echo "kept: $root"; fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
chmod 755 "$root"
cp -a "$base/." "$root"

# Where this machine gets its packages from.
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/ssl/certs/ca-certificates.crt ~/.config/pip/pip.conf ~/.pip/pip.conf; do
    if [ -e "$file" ]; then
        mkdir -p "$root${file%/*}" && cp -L "$file" "$root$file"
    fi
done
# Certificates of this machine's own; the package ca-certificates, which comes with Python's venv, adds its to them.
mkdir -p "$root/usr/local/share/ca-certificates"
find /usr/local/share/ca-certificates -name '*.crt' -exec cp -L {} "$root/usr/local/share/ca-certificates" \; 2>/dev/null || :
if command -v apt-config >/dev/null; then
    apt-config dump | grep -E '^Acquire::(https?|Check-|Retries)' >"$root/etc/apt/apt.conf.d/99machine" || :
fi
environment=(HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "TERM=${TERM:-dumb}")
while IFS= read -r -d '' setting; do
    environment+=("$setting")
done < <(env -0 | grep -zE '^(PIP_[A-Z_]+|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|[A-Za-z]+_(proxy|PROXY))=')

git clone --quiet --no-hardlinks --depth 1 "file://$PWD" "$root/srv/checkout"

# Runs its arguments inside, with the file systems that a machine has; in the background, so that a signal is heard at once.
inside() {
    # shellcheck disable=SC2016 # for the inner shell
    unshare --mount --pid --fork --kill-child bash -c '
        mount -t proc proc "$1/proc" && mount -t sysfs -o ro sysfs "$1/sys"
        mount -t tmpfs tmpfs "$1/dev" -o mode=755 && mkdir "$1/dev/pts" "$1/dev/shm"
        for node in null zero full random urandom tty; do touch "$1/dev/$node" && mount --bind "/dev/$node" "$1/dev/$node"; done
        mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts "$1/dev/pts" && ln -s pts/ptmx "$1/dev/ptmx"
        mount -t tmpfs -o mode=1777 tmpfs "$1/dev/shm"
        ln -s /proc/self/fd "$1/dev/fd"; ln -s fd/0 "$1/dev/stdin"; ln -s fd/1 "$1/dev/stdout"; ln -s fd/2 "$1/dev/stderr"
        root=$1 && shift
        chroot "$root" "$@"
    ' bash "$root" env -i "${environment[@]}" "$@" &
    child=$!
    local code=0
    wait "$child" || code=$?
    child=''
    return "$code"
}

echo "== $suite: git and make"
inside sh -c 'apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends git make' >"$root/apt.log" 2>&1 || {
    tail -n 5 "$root/apt.log" >&2 && exit 1
}
if [ -n "$user" ]; then
    inside sh -c 'useradd --create-home someone && cp -r /srv/checkout /home/someone/ && chown -R someone /home/someone'
fi

status=0
for target in "${targets[@]}"; do
    echo "== $suite: make $target"
    began=$SECONDS code=0
    if [ -n "$user" ]; then
        inside su someone -c "make -C /home/someone/checkout $target" || code=$?
    else
        inside sh -c "make -C /srv/checkout $target" || code=$?
    fi
    echo "== $suite: make $target: exit code $code after $((SECONDS - began)) s"
    [ "$code" = 0 ] || status=1
done
exit "$status"

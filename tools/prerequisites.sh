#!/bin/sh
# What `make` and .ci/run begin with: looks for all that is needed to build, and to start the embedded servers, and for a whole .venv.
# On Debian and Ubuntu what is missing is installed by root, or by sudo where that asks for no password; else the one line to run
# is printed, and on other systems what is missing is named. A half-made .venv is made again.
#
# Usage: [PYTHON=python3.12] tools/prerequisites.sh [--check | --browser]
#   --check     look only: install nothing, leave .venv as it is
#   --browser   look for chromium and chromedriver as well
set -eu

case $0 in */*) cd "${0%/*}/.." ;; esac

asked=${PYTHON:-python3}
[ "$asked" != python3 ] || asked=
check='' browser=''
case ${1-} in
--check) check=1 ;;
--browser) browser=1 ;;
'') ;;
*) echo "usage: tools/prerequisites.sh [--check | --browser]" >&2 && exit 2 ;;
esac

# One line of an interpreter: version, new enough, Python.h, venv, the compiler that extensions are built with, and where it comes from.
look='
import os, sys, sysconfig
from importlib.util import find_spec
compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
header = os.path.join(sysconfig.get_path("include"), "Python.h")
venv = all(map(find_spec, ("venv", "ensurepip")))
print("%d.%d" % sys.version_info[:2], int(sys.version_info >= (3, 11)), int(os.path.exists(header)), int(venv), compiler, sys.base_prefix)
'

# Sets `python` to the interpreter to be used, empty if there is none, and `version` ... `prefix` to what it says.
choose_python() {
    for python in ${asked:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if said=$("$python" -c "$look" 2>/dev/null) && read_said && [ "$fit" = 1 ]; then
            return
        fi
    done
    python=
}

read_said() {
    read -r version fit headers venv compiler prefix <<EOF
$said
EOF
}

# A whole .venv has a Python that is new enough, is the one asked for, and has pip; and pip was not cut short while it installed.
# Where an installation is still to come, pip must also run.
venv_is_whole() {
    [ -x .venv/bin/python ] && [ ! -e .venv/.unfinished ] || return 1
    said=$(.venv/bin/python -c "$look" 2>/dev/null) && read_said && [ "$fit" = 1 ] || return 1
    if [ -n "$asked" ]; then
        wanted=$("$asked" -c "$look" 2>/dev/null) && [ "${wanted%% *} ${wanted#* * * * * }" = "$version $prefix" ] || return 1
    fi
    if [ -e .venv/.ready ] || [ -e .venv/.demo-ready ]; then
        .venv/bin/python -c 'import pip' 2>/dev/null
    else
        .venv/bin/python -m pip --version >/dev/null 2>&1
    fi
}

# Sets `missing`, for people, and `packages`, for apt-get. What a Python from elsewhere lacks is in no package.
need() { # what, package
    missing="${missing:+$missing, }$1"
    packages="$packages${2:+ $2}"
    [ -n "${2-}" ] || elsewhere=1
}

look_around() {
    missing='' packages='' elsewhere=''
    if venv_is_whole; then
        python=.venv/bin/python venv=1 made=1
    else
        made=
        choose_python
    fi
    if [ -n "$python" ]; then
        of_python() { case $prefix in /usr) echo "python$version-$1" ;; esac; }
        [ "$venv" = 1 ] || need "venv of Python $version" "$(of_python venv)"
        [ "$headers" = 1 ] || need "headers of Python $version" "$(of_python dev)"
    else
        compiler=${CC:-gcc}
        compiler=${compiler%% *}
        case $asked in
        */*) need "$asked" ;;
        ?*) need "$asked" "$asked $asked-venv $asked-dev" ;;
        *)
            package=python3
            # Ubuntu 22.04 has 3.11 beside a python3 that is too old.
            if command -v python3 >/dev/null || grep -qs '^VERSION_CODENAME=jammy' /etc/os-release; then package=python3.11; fi
            need "Python 3.11 or newer" "$package $package-venv $package-dev"
            ;;
        esac
    fi
    echo '#include <stdlib.h>' | "$compiler" -E - >/dev/null 2>&1 || need "C compiler" "gcc libc6-dev"
    command -v make >/dev/null || need make make
    if [ -n "$browser" ]; then
        command -v chromium >/dev/null || command -v google-chrome >/dev/null || need chromium chromium
        command -v chromedriver >/dev/null || need chromedriver chromium-driver
    fi
    # What the mongod of the extra `embedded` is linked against, and a minimal system may lack.
    if [ "$(uname -s)" = Linux ]; then
        libraries=$("$(command -v ldconfig || echo /sbin/ldconfig)" -p 2>/dev/null || :)
        for library in libcurl.so.4:libcurl4 libssl.so.3:libssl3 libcrypto.so.3:libssl3 liblzma.so.5:liblzma5; do
            case $libraries in
            *"${library%:*} "*) ;;
            *) need "${library%:*}" "${library#*:}" ;;
            esac
        done
    fi
}

fail() {
    printf 'prerequisites: %s\n' "$@" >&2
    exit 1
}

look_around
if [ -n "$missing" ]; then
    if [ -n "$elsewhere" ] || ! command -v apt-get >/dev/null; then fail "missing: $missing"; fi
    install="apt-get install -y --no-install-recommends$packages"
    if [ "$(id -u)" = 0 ]; then
        line="apt-get update && $install" root=
    elif command -v sudo >/dev/null; then
        line="sudo apt-get update && sudo $install" root="sudo -n"
    else
        line="su -c 'apt-get update && $install'" root=none
    fi
    if [ -n "$check" ] || [ "$root" = none ] || { [ -n "$root" ] && ! sudo -n true 2>/dev/null; }; then
        fail "missing: $missing; run: $line"
    fi
    echo "prerequisites: missing: $missing; installing$packages" >&2
    # shellcheck disable=SC2086 # words each
    {
        $root apt-get -o DPkg::Lock::Timeout=300 update -qq
        $root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq ${install#apt-get } >/dev/null
    } || fail "apt-get failed; to try by hand: $line"
    look_around
    [ -z "$missing" ] || fail "still missing after $install: $missing"
fi

if [ -z "$made$check" ]; then
    # uv makes environments without pip on purpose; another one without pip is half-made.
    ! grep -qs '^uv = ' .venv/pyvenv.cfg || fail ".venv was made by uv and has no pip: remove it, or run uv pip install pip"
    rm -rf .venv
    # Whatever cuts this short leaves a .venv without a pip that runs.
    "$python" -m venv .venv || fail "$python -m venv failed"
    # To these, the 3.11.0rc1 of Ubuntu 22.04 is neither older nor newer than 3.11.3, and what packages need there is left out.
    case $(.venv/bin/python -m pip --version 2>/dev/null) in
    'pip 2'[0-2]*) .venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip || fail "pip could not be upgraded" ;;
    esac
fi

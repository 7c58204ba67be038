#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian or Ubuntu packages that are missing, without questions, after naming them.
# Looks for what a package brings, not for its name in dpkg: a tool from elsewhere serves as well.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
PYTHON=${PYTHON:-python3}

needed=()   # no build and no tests without these
wanted=()   # their absence costs tests (skipped, loudly) or demo's namespaces

program() {
    command -v "$1" > /dev/null 2>&1 || [[ " ${wanted[*]} " == *" $2 "* ]] || eval "$3+=($2)"
}
python_has() { "$PYTHON" -c "$1" > /dev/null 2>&1; }

program g++ g++ needed
if ! command -v "$PYTHON" > /dev/null 2>&1; then
    needed+=(python3 python3-venv python3-dev)
else
    python_has 'import venv, ensurepip' || needed+=(python3-venv)
    python_has 'import os, sysconfig; os.stat(sysconfig.get_paths()["include"] + "/Python.h")' \
        || needed+=(python3-dev)
fi
# The soname is the same on both; only the package's name differs (64-bit time_t on Ubuntu 24.04).
# Not through a pipe: grep -q would leave before ldconfig is done, which pipefail takes for a failure.
if [[ $(ldconfig -p 2> /dev/null) != *libpcap.so.0.8* ]]; then
    needed+=(libpcap0.8)
fi
program ccache ccache wanted
program ip iproute2 wanted
program ethtool ethtool wanted
program tcpdump tcpdump wanted
program tshark tshark wanted
program editcap wireshark-common wanted
program dumpcap wireshark-common wanted
program dnsmasq dnsmasq-base wanted
program dig bind9-dnsutils wanted
program curl curl wanted
program iperf3 iperf3 wanted
# For tests of receivers, in CI only: on a person's machine gpsd would take the serial ports of real receivers,
# and chrony the setting of the clock.
if [ "${CI:-}" = true ]; then
    program gpsd gpsd wanted
    program chronyd chrony wanted
fi
program tclsh tcl wanted  # runs the scripts for Vivado in a stand-in for it
# Waveforms of the simulated card.
[ -e /usr/include/zlib.h ] || wanted+=(zlib1g-dev)
[ -e /usr/include/lz4.h ] || wanted+=(liblz4-dev)

# What `make firmware` needs, and nobody else: tools/packages.sh firmware.
if [ "${1:-}" = firmware ]; then
    needed=()
    wanted=()
    program riscv64-unknown-elf-gcc gcc-riscv64-unknown-elf needed
    riscv64-unknown-elf-gcc --specs=picolibc.specs -E -include stdint.h -x c /dev/null > /dev/null 2>&1 \
        || needed+=(picolibc-riscv64-unknown-elf)
fi

missing=("${needed[@]}" "${wanted[@]}")
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi

give_up() {
    echo "setup: $1" >&2
    if [ ${#needed[@]} -gt 0 ]; then
        echo "setup: cannot go on without: ${needed[*]}" >&2
        exit 1
    fi
    echo "setup: going on without: ${wanted[*]} (tests that need them are skipped)" >&2
    exit 0
}

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo)
    command -v sudo > /dev/null 2>&1 || give_up "neither root nor sudo; as root run: apt-get install ${missing[*]}"
fi
command -v apt-get > /dev/null 2>&1 || give_up "no apt-get here; install what gives you: ${missing[*]}"

echo "setup: installing Debian packages: ${missing[*]}"
apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y \
        -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" > /dev/null
}
apt update || echo "setup: apt-get update failed; trying with the lists that are here" >&2
for i in "${!missing[@]}"; do
    if [ "${missing[i]}" = libpcap0.8 ] && apt-cache show libpcap0.8t64 > /dev/null 2>&1; then
        missing[i]=libpcap0.8t64
    fi
done
apt install --no-install-recommends "${missing[@]}" || give_up "apt-get could not install ${missing[*]}"

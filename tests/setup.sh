#!/usr/bin/env bash
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Makes this machine able to run the tests that need a Docker engine: Debian packages that are missing, and an engine. With
# `bench` also what figures are measured beside.
# An engine that answers already is left as it is.
set -euo pipefail

answers() { docker version >/dev/null 2>&1; }

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need mmdebstrap mmdebstrap
need hashdeep hashdeep
need shellcheck shellcheck
need mkfs.xfs xfsprogs
need ip iproute2
need nft nftables
need npm npm
[[ ${1:-} != bench ]] || { need squid squid-openssl; need restic restic; }
/usr/bin/python3 -c 'import cryptography' 2>/dev/null || missing+=(python3-cryptography)
if ! answers; then
    need dockerd docker.io
    need iptables iptables
fi

if ((${#missing[@]})); then
    echo "setup: installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    if [[ ! -e /usr/sbin/policy-rc.d ]]; then
        # Nobody needs a proxy that listens, and without a service manager init scripts fail on `ulimit`. The engine is started below.
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
    fi
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends "${missing[@]}" ca-certificates >/dev/null
    # Debian 13 has the client in a package of its own.
    command -v docker >/dev/null || apt-get install -qq -y --no-install-recommends docker-cli >/dev/null
fi

answers && exit 0
if [[ -d /run/systemd/system ]]; then
    systemctl start docker
else
    log=/var/log/dockerd-tests.log
    echo "setup: no service manager, starting dockerd (log: $log)"
    rm -f /var/run/docker.pid
    # dockerd refuses a setting that is in its configuration file and on its command line.
    live_restore=(--live-restore)
    grep -qs live-restore /etc/docker/daemon.json && live_restore=()
    setsid dockerd "${live_restore[@]}" >"$log" 2>&1 </dev/null &
fi
for _ in $(seq 60); do
    answers && exit 0
    sleep 0.5
done
echo "setup: the Docker engine does not answer; see ${log:-journalctl -u docker}" >&2
exit 1

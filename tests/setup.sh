#!/bin/bash
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Makes this machine able to run the tests that need a Docker engine: Debian packages that are missing, and an engine.
# An engine that answers already is left as it is.
set -euo pipefail

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need /usr/bin/dockerd docker.io
need mmdebstrap mmdebstrap
need hashdeep hashdeep
need shellcheck shellcheck
# Debian 13 has the client in a package of its own.
if ! command -v docker >/dev/null && apt-cache show docker-cli >/dev/null 2>&1; then missing+=(docker-cli); fi
python3 -c 'import cryptography' 2>/dev/null || missing+=(python3-cryptography)

if ((${#missing[@]})); then
    echo "setup: installing ${missing[*]}"
    # The package's start script would need what a container or a small VM does not give; the engine is started below.
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends "${missing[@]}" ca-certificates iptables >/dev/null
fi

answers() { docker version >/dev/null 2>&1; }
answers && exit 0

if [[ -d /run/systemd/system ]]; then
    systemctl start docker
else
    echo 'setup: no service manager, starting dockerd (log: /var/log/dockerd-tests.log)'
    rm -f /run/docker.pid /var/run/docker.pid
    setsid dockerd --live-restore >/var/log/dockerd-tests.log 2>&1 </dev/null &
fi
for _ in $(seq 60); do
    answers && exit 0
    sleep 0.5
done
echo 'setup: the Docker engine does not answer; see /var/log/dockerd-tests.log' >&2
exit 1

#!/bin/sh
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# P2: egress runs behind its walls, every sandbox has a proxy, and that it denies is proven.
exec "$(dirname "$0")/../bin/phase" network "$@"

#!/bin/sh
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# P11: sandboxes reach LLM providers through the gateway, within budgets.
exec "$(dirname "$0")/../bin/phase" cost "$@"

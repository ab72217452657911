# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m dockersandbox.egress``: the way out of sandboxes."""

from __future__ import annotations

import argparse
import sys

import uvloop

from dockersandbox.common.config import ConfigError
from dockersandbox.common.records import SOCKET, Records
from dockersandbox.common.service import say
from dockersandbox.egress.service import Service


async def _serve(options: argparse.Namespace) -> None:
    records = Records(options.recorder)
    await Service(options.folder, options.config, records.record).run()
    await records.close()


def main() -> int:
    """Serve; return what the process exits with."""
    parser = argparse.ArgumentParser(prog="egress", description=__doc__)
    parser.add_argument("--folder", default="/run/guardrails/egress", help="of the sockets")
    parser.add_argument("--config", default="/etc/guardrails/egress.json")
    parser.add_argument("--recorder", default=SOCKET, help="the socket on which events are recorded")
    try:
        uvloop.run(_serve(parser.parse_args()))
    except (ConfigError, OSError) as error:
        say("egress", str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

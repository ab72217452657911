# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seals the segments that were rotated, in a process of its own: compressing would hold up who waits for the recorder.

Arguments: the log's folder, the log key. It writes a JSON line for each segment it sealed; the last line may say why it stopped.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic, chain, seal


def alone(folder: Path) -> int:
    """Wait until no sealer is at work in *folder*: one may be that an ended recorder left. Returns what holds off others."""
    held = os.open(folder / ".sealing", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)
    return held


def main(folder: Path, key: Path) -> int:
    """Seal what there is, oldest first."""
    os.nice(10)
    try:
        alone(folder)
        private, by = seal.load_private(key), chain.signer(seal.public_of(key))
        for first in sorted(chain.contents(folder).raw):
            made = chain.pack(folder, first, private, by)
            said = {"first_seq": made.first, "last_seq": made.last.seq, "records": made.records, "root": made.root, "seal_sha256": made.sha256}
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()
    except BrokenPipeError:
        return 1  # the recorder has ended; the next one goes on
    except (chain.ChainError, seal.SealError) as error:
        sys.stdout.write(json.dumps({"error": str(error)}) + "\n")
        return 1
    except OSError as error:
        sys.stdout.write(json.dumps({"error": f"{error.filename or folder}: {atomic.reason(error)}"}) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))

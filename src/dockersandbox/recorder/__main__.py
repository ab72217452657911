# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts the recorder; the one argument is its configuration, where that is not in the usual place."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import redaction, seal

from dockersandbox.common import service
from dockersandbox.recorder.log import LogError
from dockersandbox.recorder.service import NAME, serve
from dockersandbox.recorder.settings import Settings


def load(settings: Settings) -> redaction.Redactor:
    """Return the redactor that *settings* describe."""
    # The controller has tried the expressions. Here it would depend on how busy the host is whether there is a record.
    return redaction.Redactor.load(settings.redaction, Path(settings.keys), trial=False)


if __name__ == "__main__":
    service.run(NAME, lambda path: serve(path, load), LogError, seal.SealError, OSError)

# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A recorder that takes no secret out of anything: what its rules cost is the difference to the one that does."""

from __future__ import annotations

import typing as t

from dockersandbox.common import service
from dockersandbox.recorder.service import NAME, serve


class Unruled:
    """A redactor without rules."""

    def look(self) -> None:
        """There is nothing to look at."""

    def redacted(self, event: dict[str, t.Any]) -> tuple[dict[str, t.Any], dict[str, int]]:
        """Return *event* as it is."""
        return event, {}

    def forget(self, until: str, groups: t.Collection[str] = ()) -> list[str]:
        """There is nothing to forget."""
        raise NotImplementedError(until, groups)


if __name__ == "__main__":
    service.run(NAME, lambda path: serve(path, lambda _settings: Unruled()))

# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What came of every attack, as one table."""

from __future__ import annotations

import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import stack, status
from security.cases import Case

HELD = "held"


class Table:
    """Results by case and runtime, and what was shown to succeed without its protection."""

    def __init__(self) -> None:
        self.results: dict[tuple[str, str], str] = {}
        self.proven: dict[str, str] = {}

    def text(self, cases: t.Sequence[Case]) -> str:
        """Return the table, and the counts below it."""
        rows = []
        for case in cases:
            key = f"{case.group}/{case.name}"
            cells = [self.results.get((key, runtime), "-") for runtime in stack.RUNTIMES]
            if any(cell != "-" for cell in cells) or key in self.proven:
                rows.append((case.group, case.name, *cells, self.proven.get(key, ""), f"{case.tries} ({case.source})" if case.source else case.tries))
        lines = [status.columns(("Class", "Case", *stack.RUNTIMES, "Succeeds without", "What it tries"), rows), ""]
        for runtime in stack.RUNTIMES:
            tried = [value for (_key, where), value in self.results.items() if where == runtime and not value.startswith("-")]
            fell = sum(value != HELD for value in tried)
            lines.append(f"{runtime}: {fell} successes of {len(tried)}" if tried else f"{runtime}: not there")
        shown = sum(not value.startswith("NOT") for value in self.proven.values())
        lines.append(f"{shown} of {len(self.proven)} attacks succeed once their protection is taken away")
        return "\n".join(lines)

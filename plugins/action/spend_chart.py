# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draw what LLM calls cost, on the controller."""

from __future__ import annotations

import io
import pathlib
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic, budgets, llm

try:
    import matplotlib.figure

    DRAWS = True
except ImportError:
    DRAWS = False

_MOST = 12  # bars of a kind; the others are one
_KINDS = ("sandbox", "team", "model", "run")
# Told apart without colours too, by how dark they are.
_SPENT, _HELD, _LEFT = "#1f4e79", "#e39b3b", "#e4e7ea"


def bars(spend: llm.Spend) -> list[tuple[str, list[tuple[str, float]]]]:
    """Return what is drawn for each kind that there is something of: names and dollars, the dearest first, the rest as one."""
    found = []
    for kind in _KINDS:
        rows = sorted(spend.get(kind, {}).items(), key=lambda item: (-item[1]["spent"], item[0]))
        shown = [(_short(name), one["spent"] / budgets.DOLLAR) for name, one in rows[:_MOST]]
        if rest := rows[_MOST:]:
            shown.append((f"{len(rest)} more", sum(one["spent"] for _name, one in rest) / budgets.DOLLAR))
        if shown:
            found.append((kind, shown))
    return found


def draw(title: str, since: int, spend: llm.Spend, standing: list[llm.Row], simulated: list[str]) -> bytes:
    """Return the chart as a PNG: where budgets stand, and then who spent what."""
    kinds = bars(spend)
    rows = [row for row in standing if row["limit"]][: 2 * _MOST]
    heights = [max(len(rows), 1) + 1, *(len(shown) + 1 for _kind, shown in kinds)]
    figure = matplotlib.figure.Figure(figsize=(9, 1.6 + 0.32 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    about = f"LLM spend of {title} since {llm.moment(since)}"
    figure.suptitle(about + (f"\nsimulated, no real money: {', '.join(simulated)}" if simulated else ""))
    _budgets(axes[0], rows)
    for axis, (kind, shown) in zip(axes[1:], kinds, strict=True):
        _bars(axis, kind, shown)
    made = io.BytesIO()
    figure.savefig(made, format="png", dpi=120, metadata={"Software": None})
    return made.getvalue()


def _budgets(axis: t.Any, rows: list[llm.Row]) -> None:
    axis.set_title("Budgets, in parts of their limits (dark: spent, orange: held)", loc="left", fontsize=10)
    axis.set_xlim(0, max([1.0, *((row["spent"] + row["held"]) / row["limit"] for row in rows)]) * 1.3)
    for place, row in enumerate(rows):
        spent, held = row["spent"] / row["limit"], row["held"] / row["limit"]
        axis.barh(place, 1, color=_LEFT)
        axis.barh(place, spent, color=_SPENT)
        axis.barh(place, held, left=spent, color=_HELD)
        text = f"{budgets.dollars(row['spent'])} of {budgets.dollars(row['limit'])}"
        axis.text(max(1, spent + held) + 0.02, place, text, va="center", fontsize=8)
    axis.set_yticks(range(len(rows)), [_short(f"{row['name']}: {row['subject']}") for row in rows], fontsize=8)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.invert_yaxis()


def _bars(axis: t.Any, kind: str, shown: list[tuple[str, float]]) -> None:
    axis.set_title(f"Dollars by {kind}", loc="left", fontsize=10)
    drawn = axis.barh(range(len(shown)), [dollars for _name, dollars in shown], color=_SPENT)
    axis.bar_label(drawn, fmt="%.4g", padding=3, fontsize=8)
    axis.set_yticks(range(len(shown)), [name for name, _dollars in shown], fontsize=8)
    axis.margins(x=0.15)
    axis.set_xlim(left=0)
    axis.invert_yaxis()


def _short(name: str) -> str:
    # A dollar sign would begin a formula.
    text = name if len(name) <= 40 else f"{name[:39]}…"
    return text.replace("$", r"\$")


class ActionModule(ActionBase):  # type: ignore[misc]
    """Writes the chart where it differs from what is there."""

    _requires_connection = False
    _VALID_ARGS = frozenset({"path", "title", "since", "spend", "standing", "simulated"})

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Draw."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        options = self.validate_argument_spec(
            argument_spec={
                "path": {"type": "path", "required": True},
                "title": {"type": "str", "required": True},
                "since": {"type": "int", "required": True},
                "spend": {"type": "dict", "required": True},
                "standing": {"type": "list", "elements": "dict", "required": True},
                "simulated": {"type": "list", "elements": "str", "default": []},
            }
        )[1]
        if not DRAWS:
            raise AnsibleActionFail("matplotlib is not installed on the controller: run make spend, or install requirements/spend.txt")
        path = pathlib.Path(options["path"]).absolute()
        try:
            made = draw(*(options[key] for key in ("title", "since", "spend", "standing", "simulated")))
            changed = atomic.read(path) != made
            if changed and not self._task.check_mode:
                atomic.write(path, made)
        except OSError as error:
            raise AnsibleActionFail(f"{path}: {atomic.reason(error)}") from error
        result.update(changed=changed, path=str(path))
        return result

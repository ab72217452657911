# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway of LLM calls as the tools of its host see it: how it is spoken to, and what spend and budgets come to.

Amounts are whole micro-dollars, times seconds since 1970 UTC.
"""

from __future__ import annotations

import contextlib
import time
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import budgets, recorder, stack, status
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places

NAME = "llm"
SIMULATED = "simulated"  # whose prices hold where no money is spent
FOLDER = f"/run/guardrails/{NAME}"  # in a sandbox
# The least part of a window from which its end is foretold: of a day's first minutes nothing follows for the rest of it.
_LEAST_PART = 10

Row = dict[str, t.Any]
Spend = dict[str, dict[str, dict[str, int]]]


def command(sockets: str, word: str, patience: float = recorder.PATIENCE, /, **arguments: t.Any) -> dict[str, t.Any]:
    """Return what the gateway answers to one command; *sockets* is the folder of the host's sockets. Raises RecorderError."""
    with recorder.Client(recorder.admin_socket(sockets, NAME), patience) as client:
        return client.command({"command": word, **arguments})


def simulated(status: dict[str, t.Any]) -> list[str]:
    """Return the families of protocols whose calls go to the simulated provider, as the gateway's *status* tells it."""
    return sorted(family for family, upstream in status["upstreams"].items() if upstream["provider"] == SIMULATED)


# -- runs


def reached(description: stack.Description) -> bool:
    """Return whether a sandbox that is so described reaches the gateway at all."""
    return any(mount["target"] == FOLDER for mount in description["mounts"])


@contextlib.contextmanager
def counted(
    places: Places, sandbox: str, description: stack.Description, run_id: str, patience: float = recorder.PATIENCE
) -> t.Iterator[None]:
    """Have what *sandbox* calls while the block runs counted to *run_id*, and held to the budgets of runs.

    Raises RecorderError before the block has begun when the gateway does not answer: a run whose calls nobody counts is none.
    """
    if not reached(description):
        yield
        return
    command(places.run, "run", patience, sandbox=sandbox, run=run_id)
    try:
        yield
    finally:
        # What the run came to must be told. Calls that it left behind still count to it, and a later run takes its place.
        with contextlib.suppress(recorder.RecorderError):
            command(places.run, "run", patience, sandbox=sandbox, run=run_id, ended=True)


# -- budgets


def changes(declared: t.Sequence[dict[str, t.Any]], wanted: t.Sequence[budgets.Budget], exclusive: bool) -> list[str]:
    """Return what declaring *wanted* changes about what is *declared*, a line each; *exclusive*: and no others stay."""
    before = {budget.name: budget for budget in budgets.parse(list(declared))}
    after = {budget.name: budget for budget in wanted}
    found = []
    for name in sorted({*before, *after}):
        if name not in after:
            found += [f"Removed budget {name}: it is not declared any more"] if exclusive else []
        elif name not in before:
            found.append(f"Declared budget {name}: it was not there")
        elif before[name] != after[name]:
            found.append(f"Declared budget {name} anew: {', '.join(_differences(before[name], after[name]))}")
    return found


def _differences(before: budgets.Budget, after: budgets.Budget) -> list[str]:
    old, new = before.declared(), after.declared()
    return [f"{key} was {old[key]}, not {new[key]}" for key in new if old[key] != new[key]]


def projected(row: Row, now: int) -> int:
    """Return what will be spent by the end of a budget's window if it goes on as it did since its start.

    Of a window that has just begun at least a tenth counts as gone. What has no end has no projection but what is spent.
    """
    spent = int(row["spent"])
    if row["until"] is None:
        return spent
    whole = row["until"] - row["since"]
    gone = max(min(now, row["until"]) - row["since"], whole // _LEAST_PART, 1)
    return -(-spent * whole // gone)


def over(rows: t.Iterable[Row], now: int, ahead: bool = True) -> list[str]:
    """Return the budgets that are over, a line each: what is spent and held, or with *ahead* will be, is more than there is.

    A hard budget is over as well when nothing is left of it: the next call would be refused.
    """
    found = []
    for row in rows:
        taken = row["spent"] + row["held"]
        if taken > row["limit"] or (row["mode"] == "hard" and row["spent"] >= row["limit"]):
            held = f" and {budgets.dollars(row['held'])} held" if row["held"] else ""
            found.append(f"{_whose(row)}: {budgets.dollars(row['spent'])} spent{held} of {budgets.dollars(row['limit'])} {_window(row)}")
        elif ahead and (foretold := projected(row, now)) > row["limit"]:
            found.append(
                f"{_whose(row)}: {budgets.dollars(row['spent'])} spent, which makes {budgets.dollars(foretold)} of"
                f" {budgets.dollars(row['limit'])} {_window(row)} at this rate"
            )
    return found


def _whose(row: Row) -> str:
    return f"budget {row['name']} of {row['subject']}"


def _window(row: Row) -> str:
    return f"by {moment(row['until'])}" if row["until"] is not None else "for ever"


def moment(at: int) -> str:
    """Return a time as people read it, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(at))


# -- tables


def table(rows: t.Sequence[Row], spend: Spend, since: int, now: int | None = None) -> str:
    """Return where the budgets stand, and what was spent since *since* and by whom, as text."""
    now = int(time.time()) if now is None else now
    standing = [
        (
            row["name"],
            row["subject"],
            row["mode"],
            budgets.dollars(row["limit"]),
            budgets.dollars(row["spent"]),
            budgets.dollars(row["held"]),
            budgets.dollars(projected(row, now)),
            moment(row["until"]) if row["until"] is not None else "never",
        )
        for row in rows
    ]
    parts = []
    if standing:
        parts.append(status.columns(("Budget", "Of", "Mode", "Limit", "Spent", "Held", "Projected", "Ends"), standing))
    spent = [
        (scope, name, str(one["calls"]), budgets.dollars(one["spent"]), budgets.dollars(one["held"]))
        for scope in ("total", "host", "team", "sandbox", "model", "run")
        for name, one in sorted(spend.get(scope, {}).items(), key=lambda item: (-item[1]["spent"], item[0]))
    ]
    head = ("Dollars by", "Since " + moment(since), "Calls", "Spent", "Held")
    parts.append(status.columns(head, spent) if spent else f"Nothing was spent since {moment(since)}.")
    return "\n\n".join(parts)

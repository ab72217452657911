# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What acts on a host says so: before, so that nothing is done off the record, and after, with what came of it.

Both events have the same ``trace_id``: a run's id, or one of the process. The first has the outcome ``unknown``.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import os
import pwd
import secrets
import sys
import time
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import lock, places, recorder
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places

# What a module that acts on the host itself has for options, to know whether and where it records.
OPTIONS: dict[str, dict[str, t.Any]] = {"home": {"type": "path", "default": places.HOME}, "run": {"type": "path", "default": places.RUN}}

_PROCESS = secrets.token_hex(8)
_trace: contextvars.ContextVar[str | None] = contextvars.ContextVar("trace", default=None)


@dataclasses.dataclass
class Came:
    """What came of an act, for the block to tell. *outcome* is success or failure; *detail* holds texts, integers and truths."""

    outcome: str = "success"
    reason: str | None = None
    detail: dict[str, str | int | bool] = dataclasses.field(default_factory=dict)


def places_of(params: t.Mapping[str, t.Any]) -> Places:
    """Return the places that the :data:`OPTIONS` of a module name."""
    return Places(params["home"], run=params["run"])


def required(host: Places) -> bool:
    """Return whether what acts on this host is recorded: from when on its recorder has a configuration.

    The only place that decides it. Until then the first phases are bringing the recorder up, and there is nothing to record with;
    nor is there after a teardown, which takes it down last of all.
    """
    if os.path.exists(host.down) and not os.path.exists(recorder.event_socket(host.run)):
        return False
    return os.path.exists(os.path.join(host.home, "configs", "services", "recorder.json"))


def run_id() -> str:
    """Return a new run's id: its start in UTC and four random digits, so that ids sort by time."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + "-" + secrets.token_hex(2)


@contextlib.contextmanager
def traced(trace: str) -> t.Iterator[None]:
    """Give what is recorded in the block the *trace* of the run it belongs to."""
    token = _trace.set(trace)
    try:
        yield
    finally:
        _trace.reset(token)


@contextlib.contextmanager
def recorded(
    host: Places,
    action: str,
    kind: str,
    ends: str = "",
    patience: float = recorder.PATIENCE,
    sandbox: str | None = None,
    resource: str | dict[str, t.Any] | None = None,
    argv: t.Sequence[str] | None = None,
    reason: str | None = None,
) -> t.Iterator[Came]:
    """Record *action* (an event of class *kind*), let the block act, and record what it tells of the outcome, or its exception.

    *ends* is the second event's action, the same as the first's by default; *patience* the seconds a recorder gets to answer. Raises
    RecorderError: before the block has begun, nothing was done.
    """
    came = Came()
    if not required(host):
        yield came
        return
    event: dict[str, t.Any] = {
        "action": action,
        "class": kind,
        "actor": _actor(),
        "sandbox": sandbox,
        "resource": resource,
        "trace_id": _trace.get() or _PROCESS,
    }
    first = {**event, "argv": None if argv is None else list(argv), "reason": reason, "outcome": "unknown"}
    last = {**event, "action": ends or action}
    with recorder.Client(recorder.event_socket(host.run), patience) as client:
        client.record(_told(first))
        # A run may take hours: the connection is made anew.
        client.close()
        try:
            yield came
        except BaseException as error:
            # What went wrong is what the caller must hear, whether it could be recorded or not.
            with contextlib.suppress(recorder.RecorderError):
                client.record(_told({**last, "outcome": "failure", "reason": str(error) or type(error).__name__, "detail": came.detail}))
            raise
        client.record(_told({**last, "outcome": came.outcome, "reason": came.reason, "detail": came.detail}))


def write_files(host: Places, steps: t.Sequence[lock.Step]) -> None:
    """Do the *steps* of :func:`lock.plan` on record."""
    if not steps:
        return
    files = {"files": [str(step.wanted.path) for step in steps]}
    with recorded(host, "file.write", "file_activity", resource=files, reason=reasons(step.text for step in steps)):
        for step in steps:
            lock.apply(step)


def reasons(actions: t.Iterable[str]) -> str:
    """Return what is done and why as one text, no longer than an event should be."""
    text = "; ".join(actions)
    return text if len(text) <= 4000 else text[:3999] + "…"


def _told(event: dict[str, t.Any]) -> dict[str, t.Any]:
    return {key: encodable(value) for key, value in event.items() if value not in (None, {})}


def encodable(value: t.Any) -> t.Any:
    """Return *value* as an event can hold it: plain texts and integers, and a byte of a name or argument that is no UTF-8 spelt out."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, dict):
        return {encodable(key): encodable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encodable(item) for item in value]
    return value


def _actor() -> dict[str, str]:
    """Return who acts: the person, who may have become root, and by what."""
    name = os.environ.get("SUDO_USER") or _account()
    return {"type": "user", "name": name, "process": "sandbox" if os.path.basename(sys.argv[0]) == "sandbox" else "ansible"}


def _account() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())

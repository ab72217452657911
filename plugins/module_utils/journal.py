# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a playbook did, as events: what Ansible tells a callback, and what of it may be kept.

Names, arguments and conditions are taken as they stand in the playbook's files, never as Ansible rendered them: a file says
``{{ token }}`` where the rendered text would hold the token. What only exists at run time is kept where it tells what was
done and to what: hosts, outcomes, the paths of a diff and how many lines of it came and went, a loop's label, why a task
failed. Of a task under ``no_log`` none of these is kept but host and outcome.

A journal is a file for each run, of the log's own records, and at the end of the run a seal beside it like that of a
segment of the log.
"""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import errno
import fcntl
import getpass
import json
import os
import time
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import acts, atomic, canonical, chain, events, lock, recorder, redaction, seal

MOST_TEXT = 1000  # characters of one text that was rendered
MOST_ARGUMENT = 300  # of one argument
MOST_ARGUMENTS = 3000  # of all arguments of a task
# So much more of a longer text is redacted than is kept: a secret that the end of what is kept halves is known as one.
_MORE = 1 << 10
_DEPTH, _ITEMS = 8, 200  # of arguments

CUT = "…"
SUFFIX = ".jsonl"
SENDER = "ansible"
_KEY = "journal.key"

Event = dict[str, t.Any]


class JournalError(Exception):
    """A journal that cannot be written; the text is one line."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What a playbook's files say of a task. *arguments* is None under ``no_log`` (*hidden*); *path* is ``file:line``."""

    uuid: str
    name: str
    action: str
    path: str
    tags: tuple[str, ...] = ()
    arguments: t.Mapping[str, t.Any] | None = None
    hidden: bool = False
    check: bool = False
    delegate_to: str | None = None
    handler: bool = False


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of a task, an item of its loop, or one try, on a host. *duration* is in microseconds.

    *content* returns what the module returned, which costs Ansible something; nothing is read of it when *hidden*.
    """

    host: str
    changed: bool
    hidden: bool
    check: bool
    content: t.Callable[[], t.Mapping[str, t.Any]]
    duration: int | None = None
    item: int | None = None

    def told(self) -> t.Mapping[str, t.Any]:
        """Return what may be read of the content."""
        return {} if self.hidden else self.content()


class _Plain:
    """Brings arguments into the form of JSON, and no more of them than is kept. A vaulted value is never decrypted."""

    def __init__(self) -> None:
        self.left = MOST_ARGUMENTS

    def __call__(self, value: t.Any, depth: int = 0) -> t.Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return repr(float(value))
        if isinstance(value, str):
            return self._text(value, MOST_ARGUMENT + _MORE)
        if not isinstance(value, (collections.abc.Mapping, list, tuple)):
            return f"({type(value).__name__})"
        if self.left <= 0 or depth > _DEPTH:
            return CUT
        if isinstance(value, (list, tuple)):
            return [self(item, depth + 1) for item in value[:_ITEMS]]
        return {self._text(str(key), MOST_ARGUMENT): self(item, depth + 1) for key, item in list(value.items())[:_ITEMS]}

    def _text(self, value: str, most: int) -> str:
        taken = value[: max(0, min(most, self.left))]
        self.left -= len(taken)
        return taken if taken or not value else CUT


def playbook_started(path: str, facts: t.Mapping[str, t.Any]) -> Event:
    """Return the event of a playbook's start; *facts* are texts, numbers and truths of the command line."""
    return _event("playbook.start", "application_lifecycle", {"path": path}, None, **facts)


def playbook_ended(path: str, problem: str | None, duration: int) -> Event:
    """Return the event of a playbook's end. *problem* is why it failed, None when it did not."""
    return _event("playbook.end", "application_lifecycle", {"path": path}, _outcome(problem is None), problem, duration_us=duration)


def host_recap(host: str, counts: t.Mapping[str, int]) -> Event:
    """Return the event that says how many tasks of which outcome a host had."""
    good = not counts.get("failures") and not counts.get("unreachable")
    return _event("playbook.recap", "application_lifecycle", {"host": host}, _outcome(good), None, **counts)


def play_started(uuid: str, name: str, path: str, tags: t.Sequence[str], check: bool, strategy: str) -> Event:
    """Return the event of a play's start; *name* is as the file has it."""
    return _event("play.start", "application_lifecycle", {"play": uuid, "name": name, "path": path}, None, tags=" ".join(tags), check=check, strategy=strategy)


def play_without_hosts(uuid: str, word: t.Literal["no_hosts", "no_hosts_left"]) -> Event:
    """Return the event of a play that has no hosts, or none any more."""
    return _event(f"play.{word}", "application_lifecycle", {"play": uuid}, _outcome(word == "no_hosts"))


def prompted(name: str) -> Event:
    """Return the event of a question for the variable *name*; what was answered is nobody's business."""
    return _event("playbook.prompt", "application_lifecycle", {"variable": name}, None)


def task_started(task: Task) -> Event:
    """Return the event of a task's or handler's start."""
    return _event(
        "handler.start" if task.handler else "task.start",
        "process_activity",
        _resource(task),
        None,
        path=task.path,
        tags=" ".join(task.tags),
        # As an object until it is redacted: by the names in it too.
        arguments=None if task.arguments is None or task.hidden else _Plain()(task.arguments),
        delegate_to=task.delegate_to,
        check=task.check or None,
        no_log=task.hidden or None,
    )


def host_started(task: Task, host: str) -> Event:
    """Return the event of a task's start on one host."""
    return _event("task.host", "process_activity", {**_resource(task), "host": host}, None)


def ended(task: Task, result: Result, status: str) -> Event:
    """Return the event of a task's end on a host. *status*: ok, failed, ignored, unreachable, skipped, or of an item the same."""
    word = "changed" if status == "ok" and result.changed else status
    # Of a plain success there is nothing to say, and its content may be all facts of a host.
    told = {} if status == "ok" and result.item is None else result.told()
    return _event(
        "task.end" if result.item is None else "task.item",
        "process_activity",
        {**_resource(task), "host": result.host},
        _outcome(word not in ("failed", "ignored", "unreachable")),
        _reason(told) if word in ("failed", "ignored", "unreachable") else None,
        status=word,
        changed=result.changed,
        check=result.check or None,
        no_log=result.hidden or None,
        item=result.item,
        label=None if result.item is None else _label(told),
        condition=_text(told.get("false_condition")) if word == "skipped" else None,
        attempts=_number(told.get("attempts")),
        exit_code=_number(told.get("rc")),
        duration_us=result.duration,
    )


def retried(task: Task, result: Result) -> Event:
    """Return the event of a try that was not the last."""
    told = result.told()
    return _event(
        "task.retry",
        "process_activity",
        {**_resource(task), "host": result.host},
        "failure",
        _reason(told),
        attempts=_number(told.get("attempts")),
        retries=_number(told.get("retries")),
        no_log=result.hidden or None,
    )


def polled(task: Task, result: Result, word: t.Literal["poll", "ok", "failed"]) -> Event:
    """Return the event of a look at a task that runs by itself."""
    told = result.told()
    outcome = None if word == "poll" else _outcome(word == "ok")
    return _event("task.async", "process_activity", {**_resource(task), "host": result.host}, outcome, status=word, job=_text(told.get("ansible_job_id")))


def differed(task: Task, result: Result) -> list[Event]:
    """Return an event for each file that a task changes: its name, and how many lines came and went.

    Never a line of it: nobody can tell a password in a file from a word.
    """
    diffs = result.content().get("diff") or []
    found = []
    for diff in diffs if isinstance(diffs, list) else [diffs]:
        if not isinstance(diff, collections.abc.Mapping) or not diff:
            continue
        before, after = (collections.Counter(_lines(diff.get(end))) for end in ("before", "after"))
        header = None if result.hidden else _text(diff.get("after_header") or diff.get("before_header"))
        found.append(
            _event(
                "task.diff",
                "device_config_state_change",
                {**_resource(task), "host": result.host},
                None,
                file=header,
                added=(after - before).total(),
                removed=(before - after).total(),
                check=result.check or None,
                no_log=result.hidden or None,
            )
        )
    return found


def notified(handler: Task, host: str) -> Event:
    """Return the event of a handler's notification."""
    return _event("handler.notify", "process_activity", {**_resource(handler), "host": host}, None)


def included(task: Task, path: str, hosts: int) -> Event:
    """Return the event of an included file; *hosts* is for how many."""
    file = None if task.hidden else _text(path)
    return _event("task.include", "process_activity", _resource(task), None, file=file, hosts=hosts, no_log=task.hidden or None)


def _event(action: str, kind: str, resource: t.Mapping[str, t.Any], outcome: str | None, reason: str | None = None, **detail: t.Any) -> Event:
    told = {key: value for key, value in detail.items() if value not in (None, "")}
    return {"action": action, "class": kind, "resource": dict(resource), "outcome": outcome, "reason": reason, "detail": told}


def _resource(task: Task) -> dict[str, str]:
    return {"task": task.uuid, "name": task.name, "module": task.action}


def _outcome(good: bool) -> str:
    return "success" if good else "failure"


def _text(value: t.Any) -> str | None:
    return str(value)[: MOST_TEXT + _MORE] if isinstance(value, (str, int)) else None


def _number(value: t.Any) -> int | None:
    return int(value) if isinstance(value, int) else None


def _reason(told: t.Mapping[str, t.Any]) -> str | None:
    return _text(told.get("msg")) or _text(told.get("reason"))


def _label(told: t.Mapping[str, t.Any]) -> str | None:
    """Return an item's label where it is a text or a number; a list or a dictionary may hold what no label should."""
    return _text(told.get("_ansible_item_label", told.get("item")))


def _lines(content: t.Any) -> list[str]:
    if content is None:
        return []
    if not isinstance(content, str):
        content = json.dumps(content, indent=1, sort_keys=True, default=str)
    return content.splitlines()


def cut(event: Event) -> Event:
    """Return *event* with its texts at their limits. To be done once it is redacted: half a secret would not be known as one."""
    detail = dict(event["detail"])
    if "arguments" in detail:
        detail["arguments"] = json.dumps(_cut(detail["arguments"], MOST_ARGUMENT), sort_keys=True, ensure_ascii=False)
    detail = {key: value if key == "arguments" else _cut(value, MOST_TEXT) for key, value in detail.items()}
    return {**event, "reason": _cut(event.get("reason"), MOST_TEXT), "detail": detail or None}


def _cut(value: t.Any, most: int) -> t.Any:
    if isinstance(value, dict):
        return {key: _cut(item, most) for key, item in value.items()}
    if isinstance(value, list):
        return [_cut(item, most) for item in value]
    return value[: most - 1] + CUT if isinstance(value, str) and len(value) > most else value


# -- the file


def public_key(folder: Path) -> Path:
    """Return the public key that the seals of the journals in *folder* are proven with."""
    return folder / "keys" / Path(_KEY).with_suffix(".pub")


class Journal:
    """The journal of one run, in *folder*; *rules* are the redactor's (``logging_rules`` …). Not for several threads at once."""

    def __init__(self, folder: Path, rules: t.Mapping[str, t.Any]) -> None:
        """Begin the journal, and make the key when there is none. Raises JournalError."""
        self.run = acts.run_id()
        self.path = folder / f"{self.run}{SUFFIX}"
        keys = folder / "keys"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            keys.mkdir(mode=0o700, exist_ok=True)
            seal.ensure_key(keys / _KEY)
            self._private = seal.load_private(keys / _KEY)
            self._redact = redaction.Redactor.load(rules, keys, trial=False)
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalError(f"{error.filename or folder}: {atomic.reason(error)}") from None
        except (seal.SealError, ValueError) as error:
            raise JournalError(str(error)) from None
        # Whoever verifies sees by it that the run goes on.
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._chain = recorder.new_id()
        self._actor = {"type": "user", "name": getpass.getuser()}
        self._last, self._size = chain.START, 0

    def write(self, event: Event) -> None:
        """Add an event. Raises JournalError, and the event is not written then."""
        try:
            # Ansible's texts are of types of its own, which say where they come from.
            clean, counts = self._redact({**acts.encodable(event), "actor": self._actor, "trace_id": self.run, "id": recorder.new_id()})
            clean = cut(clean)
            events.check(clean)
            # The clock may be set back, the chain not.
            when = max(events.text_time(time.time_ns()), self._last.time)
            record = events.stamped(clean, counts, SENDER, self._last.seq + 1, when, self._chain, self._last.sha256)
            line = events.line(record)
            if os.write(self._file, line + b"\n") <= len(line):
                # Half a line would be in the way of the next.
                os.ftruncate(self._file, self._size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise JournalError(f"{self.path}: {atomic.reason(error)}") from None
        except (events.EventError, ValueError) as error:
            raise JournalError(f"{self.path}: {event['action']}: {error}") from None
        self._size += len(line) + 1
        self._last = chain.Link(self._last.seq + 1, canonical.sha256_hex(line), when)

    def close(self) -> None:
        """End the journal: durable, and sealed. Raises JournalError."""
        try:
            os.fsync(self._file)
            scanned = chain.scan_file(self.path, chain.START, self._last)
            if scanned.breaks:
                raise JournalError(f"{scanned.breaks[0]}: it was changed while it was written, and is not sealed")
            subjects = {self.path.name: t.cast(str, lock.digest_of(self.path))}
            made = seal.statement(subjects, chain.SEGMENT_KIND, chain.predicate(scanned))
            seal.write(seal_of(self.path), seal.sign(made, self._private))
        except OSError as error:
            raise JournalError(f"{error.filename or self.path}: {atomic.reason(error)}") from None
        finally:
            os.close(self._file)


def journals(folder: Path) -> list[Path]:
    """Return the journals in *folder*, oldest first."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def seal_of(path: Path) -> Path:
    """Return where the seal of the journal at *path* is."""
    return path.with_name(path.name + seal.SUFFIX)


def verify(path: Path, public: Path) -> list[str]:
    """Return what is wrong with the journal at *path*, a line each; none for one whose run goes on. Raises SealError without the key."""
    by = chain.signer(public)
    try:
        if not seal_of(path).exists():
            problem = "it has no seal: its run was killed, or the seal was taken away; look at it, and move it away"
            return [] if _goes_on(path) else [f"{lock.show(path)}: {problem}"]
        made = chain.read_seal(seal_of(path), by)
    except OSError as error:
        return [f"{lock.show(path)}: {atomic.reason(error)}"]
    except seal.SealError as error:
        return [f"{lock.show(seal_of(path))}: {error}".replace(f"{seal_of(path)}: {seal_of(path)}", str(seal_of(path)))]
    found = chain.scan_file(path, chain.START, made.last, chain_uid=made.chain_uid)
    problems = [str(problem) for problem in found.breaks]
    if not problems and (found.records, found.root) != (made.records, made.root):
        problems.append(f"{found.path}: its records are not those that were sealed: they were written anew")
    if not problems and found.torn:
        problems.append(f"{found.path} line {found.records + 1}: it was put in after the end")
    return problems


def _goes_on(path: Path) -> bool:
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False

# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a journal of every playbook run, beside the normal screen."""

from __future__ import annotations

DOCUMENTATION = r"""
name: jsonl
type: notification
short_description: Keep a sealed journal of every playbook run
version_added: 0.1.0
author: DockerSandboxApp authors (@dockersandboxapp)
description:
  - Writes what a playbook does as JSON lines, a file for each run, beside whatever the screen shows.
  - Every line carries the sha256 of the one before it, and at the end of the run the file is sealed with a key of its own, so that
    a change is found. The same code verifies it that verifies the log of a host.
  - Names, arguments and conditions are kept as they stand in the playbook, never as they were rendered, and of a task under C(no_log)
    nothing is kept but host and outcome. The rest is redacted.
  - It observes. A journal that cannot be written is a warning, and the playbook goes on.
requirements:
  - python3-cryptography on the controller
options:
  folder:
    description:
      - The folder of the journals, and of the key that seals them. It is made when it is not there, for its owner alone.
    type: path
    default: ~/.local/state/dockersandbox/runs
    ini:
      - section: callback_jsonl
        key: folder
    env:
      - name: DOCKERSANDBOX_JSONL_FOLDER
  rules:
    description:
      - The file with the redactor's rules, C(logging_rules) and so on. By default the one that comes with the collection, C(configs/logging.yml).
    type: path
    ini:
      - section: callback_jsonl
        key: rules
    env:
      - name: DOCKERSANDBOX_JSONL_RULES
"""

EXAMPLES = r"""
enabling: >
  In ansible.cfg:
    [defaults]
    callbacks_enabled = dockersandbox.guardrails.jsonl
"""

import atexit
import os
import pathlib
import time
import typing as t

import yaml
from ansible import context
from ansible.plugins.callback import CallbackBase
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import journal

_Key = tuple[str, str]
_RULES = pathlib.Path(__file__).parents[2] / "configs" / "logging.yml"


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Tells the journal what Ansible tells a callback."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "dockersandbox.guardrails.jsonl"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *arguments: t.Any, **options: t.Any) -> None:
        super().__init__(*arguments, **options)
        self._journal: journal.Journal | None = None
        self._pid = os.getpid()
        self._path = ""
        self._play = ""
        self._began = 0
        self._tasks: dict[str, journal.Task] = {}
        self._since: dict[_Key, int] = {}
        self._items: dict[_Key, int] = {}

    # -- the journal

    def _write(self, *events: journal.Event) -> None:
        if self._journal is None or self.disabled:
            return
        try:
            for event in events:
                self._journal.write(event)
        except journal.JournalError as error:
            self._lost(error)

    def _lost(self, error: Exception) -> None:
        self.disabled = True
        self._display.warning(f"this run is kept in no journal from here on: {error}")

    def _end(self, problem: str | None, *recaps: journal.Event) -> None:
        # At its exit a process that Ansible forked from this one would end it too.
        if self._journal is None or os.getpid() != self._pid:
            return
        self._write(*recaps, journal.playbook_ended(self._path, problem, _now() - self._began))
        kept, self._journal = self._journal, None
        try:
            kept.close()
        except journal.JournalError as error:
            self._lost(error)

    # -- playbook and plays

    def v2_playbook_on_start(self, playbook: t.Any) -> None:
        """Open the journal."""
        self._began = _now()
        self._path = str(getattr(playbook, "_file_name", ""))
        line = context.CLIARGS
        facts = {word: bool(line.get(word)) for word in ("check", "diff")}
        lists = {word: " ".join(map(str, line.get(word) or ())) for word in ("tags", "skip_tags", "inventory")}
        try:
            self._journal = journal.Journal(pathlib.Path(self.get_option("folder")), _rules(pathlib.Path(self.get_option("rules") or _RULES)))
            atexit.register(self._end, "it was ended early")
        except journal.JournalError as error:
            self._lost(error)
        self._write(journal.playbook_started(self._path, {**facts, **lists, "limit": str(line.get("subset") or "")}))

    def v2_playbook_on_play_start(self, play: t.Any) -> None:
        """Tell of a play."""
        self._tasks.clear()
        self._play = str(play._uuid)
        check = bool(play.check_mode if play.check_mode is not None else context.CLIARGS.get("check"))
        self._write(journal.play_started(self._play, _name(play), str(play.get_path() or ""), _texts(play.tags), check, str(play.strategy)))

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """Tell of a play for which there is no host."""
        self._write(journal.play_without_hosts(self._play, "no_hosts"))

    def v2_playbook_on_no_hosts_remaining(self) -> None:
        """Tell of a play of which all hosts have failed."""
        self._write(journal.play_without_hosts(self._play, "no_hosts_left"))

    def v2_playbook_on_vars_prompt(self, varname: str, *_arguments: t.Any, **_options: t.Any) -> None:
        """Tell that a variable is asked for."""
        self._write(journal.prompted(str(varname)))

    def v2_playbook_on_stats(self, stats: t.Any) -> None:
        """Tell how it went, host by host, and seal the journal."""
        counts = {host: stats.summarize(host) for host in sorted(stats.processed)}
        bad = [host for host, count in counts.items() if count["failures"] or count["unreachable"]]
        problem = f"failed on {len(bad)} of {len(counts)} hosts" if bad else None
        self._end(problem, *(journal.host_recap(host, count) for host, count in counts.items()))

    # -- tasks

    def v2_playbook_on_task_start(self, task: t.Any, is_conditional: bool) -> None:  # noqa: ARG002 - Ansible gives it by name
        """Tell of a task."""
        self._write(journal.task_started(self._started(task)))

    def v2_playbook_on_handler_task_start(self, task: t.Any) -> None:
        """Tell of a handler."""
        self._write(journal.task_started(self._started(task, handler=True)))

    def v2_runner_on_start(self, host: t.Any, task: t.Any) -> None:
        """Tell that a host begins with a task."""
        self._since[host.get_name(), task._uuid] = _now()
        self._write(journal.host_started(self._task(task), host.get_name()))

    def v2_runner_on_ok(self, result: t.Any) -> None:
        """Tell of a success."""
        self._ended(result, "ok")

    def v2_runner_on_failed(self, result: t.Any, ignore_errors: bool = False) -> None:
        """Tell of a failure."""
        self._ended(result, "ignored" if ignore_errors else "failed")

    def v2_runner_on_unreachable(self, result: t.Any) -> None:
        """Tell of a host that cannot be reached."""
        self._ended(result, "unreachable")

    def v2_runner_on_skipped(self, result: t.Any) -> None:
        """Tell of a task that was not for this host."""
        self._ended(result, "skipped")

    def v2_runner_item_on_ok(self, result: t.Any) -> None:
        """Tell of an item's success."""
        self._ended(result, "ok", item=True)

    def v2_runner_item_on_failed(self, result: t.Any) -> None:
        """Tell of an item's failure."""
        self._ended(result, "ignored" if result.task_fields.get("ignore_errors") else "failed", item=True)

    def v2_runner_item_on_skipped(self, result: t.Any) -> None:
        """Tell of an item that was skipped."""
        self._ended(result, "skipped", item=True)

    def v2_runner_retry(self, result: t.Any) -> None:
        """Tell of a try that was not the last."""
        self._write(journal.retried(self._task(result.task), self._result(result)))

    def v2_runner_on_async_poll(self, result: t.Any) -> None:
        """Tell of a look at a task that runs by itself."""
        self._write(journal.polled(self._task(result.task), self._result(result), "poll"))

    def v2_runner_on_async_ok(self, result: t.Any) -> None:
        """Tell that it has ended."""
        self._write(journal.polled(self._task(result.task), self._result(result), "ok"))

    def v2_runner_on_async_failed(self, result: t.Any) -> None:
        """Tell that it has failed."""
        self._write(journal.polled(self._task(result.task), self._result(result), "failed"))

    def v2_on_file_diff(self, result: t.Any) -> None:
        """Tell which files differ, and by how much."""
        self._write(*journal.differed(self._task(result.task), self._result(result)))

    def v2_playbook_on_notify(self, handler: t.Any, host: t.Any) -> None:
        """Tell that a handler was notified."""
        self._write(journal.notified(self._task(handler), host.get_name()))

    def v2_playbook_on_include(self, included_file: t.Any) -> None:
        """Tell of an included file."""
        hosts = len(included_file._hosts)
        self._write(journal.included(self._task(included_file._task), str(included_file._filename), hosts))

    # -- from Ansible's objects to the journal's

    def _started(self, task: t.Any, handler: bool = False) -> journal.Task:
        hidden = _hidden(task)
        check = task.check_mode if isinstance(task.check_mode, bool) else context.CLIARGS.get("check")
        delegate = task.get_ds().get("delegate_to") if isinstance(task.get_ds(), dict) else None
        made = journal.Task(
            uuid=str(task._uuid),
            name=_name(task),
            action=str(task.action),
            path=str(task.get_path() or ""),
            tags=_texts(task.tags),
            arguments=None if hidden else task.args,
            hidden=hidden,
            check=bool(check),
            delegate_to=str(delegate) if isinstance(delegate, str) else None,
            handler=handler,
        )
        self._tasks[made.uuid] = made
        return made

    def _task(self, task: t.Any) -> journal.Task:
        """Return a task as its files have it: what comes with a result was rendered."""
        known = self._tasks.get(task._uuid)
        if known is None:
            known = journal.Task(str(task._uuid), _name(task), str(task.action), str(task.get_path() or ""), hidden=_hidden(task))
        return known

    def _result(self, result: t.Any, duration: int | None = None, item: int | None = None) -> journal.Result:
        check = bool(result.task.check_mode)
        # What Ansible censored by itself has nothing in it that could be told.
        return journal.Result(result.host.get_name(), result.is_changed(), _hidden(result.task), check, lambda: result.result, duration, item)

    def _ended(self, result: t.Any, status: str, item: bool = False) -> None:
        key = (result.host.get_name(), result.task._uuid)
        if item:
            number = self._items[key] = self._items.get(key, 0) + 1
            made = self._result(result, item=number)
        else:
            self._items.pop(key, None)
            since = self._since.pop(key, None)
            made = self._result(result, None if since is None else _now() - since)
        self._write(journal.ended(self._task(result.task), made, status))


def _rules(path: pathlib.Path) -> dict[str, t.Any]:
    """Return the redactor's configuration in the file at *path*. Raises JournalError."""
    try:
        content = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe loader, either
    except (OSError, yaml.YAMLError) as error:
        raise journal.JournalError(f"{path}: {' '.join(str(error).split())}; without the redactor's rules nothing is written") from None
    if not isinstance(content, dict):
        raise journal.JournalError(f"{path}: holds no rules of the redactor, and without them nothing is written")
    return content


def _now() -> int:
    return time.monotonic_ns() // 1000


def _hidden(task: t.Any) -> bool:
    """Return whether a task is under no_log; what is still a template may turn out to be so."""
    return task.no_log not in (False, None)


def _name(thing: t.Any) -> str:
    """Return the name of a task or play as its file has it: by the time it is told to a callback it was rendered."""
    written = thing.get_ds()
    if isinstance(written, dict):
        name = written.get("name")
        return str(name) if isinstance(name, str) and name else str(getattr(thing, "action", "") or "")
    # Ansible's own tasks stand in no file.
    return str(thing.name)


def _texts(values: t.Any) -> tuple[str, ...]:
    return tuple(sorted(str(value) for value in values if isinstance(value, str)))

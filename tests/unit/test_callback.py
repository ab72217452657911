# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The callback under real playbooks: every kind of event, no secret of any no_log task, and a journal that proves itself."""

from __future__ import annotations

import json
import pathlib
import random
import shutil
import signal
import stat
import subprocess
import time
import typing as t

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import journal
from unit import ansible_runs, modules
from unit.ansible_runs import Run, play

EVERYTHING = """
- name: Everything {{ word }}
  hosts: here
  gather_facts: false
  tags: [one]
  vars: {word: rendered}
  tasks:
    - name: Say {{ word }}
      ansible.builtin.debug: {msg: "{{ word }}"}
      tags: [two]
    - name: Write
      ansible.builtin.copy: {dest: "{{ playbook_dir }}/out", content: "a\\nb\\n", mode: "0600"}
      diff: true
      notify: The handler
    - name: Loop
      ansible.builtin.debug: {msg: x}
      loop: [first, {a: dictionary}, third]
      when: item != 'third'
    - name: Ignored
      ansible.builtin.command: "false"
      ignore_errors: true
      changed_when: false
    - name: Again
      ansible.builtin.command: "false"
      until: false
      retries: 1
      delay: 0
      failed_when: false
      changed_when: false
    - name: Skipped
      ansible.builtin.debug: {msg: x}
      when: word == 'other'
    - block:
        - name: Fails
          ansible.builtin.fail: {msg: "TK123456789012 is why"}
      rescue:
        - name: Include
          ansible.builtin.include_tasks: more.yml
    - name: Elsewhere
      ansible.builtin.debug: {msg: x}
      delegate_to: there
    - name: By itself
      ansible.builtin.command: sleep 0.1
      async: 5
      poll: 1
      changed_when: false
  handlers:
    - name: The handler
      ansible.builtin.debug: {msg: x}
- name: Nowhere
  hosts: none
  tasks: []
- name: Out of reach
  hosts: unreachable
  gather_facts: false
  tasks:
    - name: Never arrives
      ansible.builtin.ping:
"""


PEER = "ansible.posix.jsonl"


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("everything")
    (folder / "more.yml").write_text("- name: Included\n  ansible.builtin.debug: {msg: x}\n", encoding="ascii")
    more = "unreachable ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=1\n"
    arguments = ["-i", "hosts.yml", "-i", "more_hosts"]
    (folder / "more_hosts").write_text(more, encoding="ascii")
    more_variables = {"DOCKERSANDBOX_JSONL_RULES": ansible_runs.rules(folder), "ANSIBLE_STDOUT_CALLBACK": PEER}
    return ansible_runs.run(folder, EVERYTHING, *arguments, **more_variables)


EVENTS: list[tuple[str, dict[str, t.Any], int]] = [
    ("playbook.start", {"check": False, "diff": False}, 1),
    ("play.start", {"check": False, "strategy": "linear", "tags": "one"}, 1),
    ("play.start", {}, 3),
    ("play.no_hosts", {}, 1),
    ("task.start", {"tags": "one two", "arguments": '{"msg": "{{ word }}"}'}, 1),
    ("task.start", {"delegate_to": "there"}, 1),
    ("task.end", {"status": "changed", "changed": True}, 1),
    ("task.end", {"status": "ignored", "exit_code": 1}, 1),
    ("task.end", {"status": "skipped", "condition": "word == 'other'"}, 1),
    ("task.end", {"status": "failed"}, 1),
    ("task.end", {"status": "unreachable"}, 1),
    ("task.item", {"item": 1, "label": "first", "status": "ok"}, 1),
    ("task.item", {"item": 2, "status": "ok"}, 1),
    ("task.item", {"item": 3, "label": "third", "status": "skipped"}, 1),
    ("task.retry", {"attempts": 1}, 1),
    ("task.diff", {"added": 2, "removed": 0}, 1),
    ("task.include", {"hosts": 1}, 1),
    ("task.async", {"status": "ok"}, 1),
    ("handler.notify", {}, 1),
    ("handler.start", {}, 1),
    ("playbook.recap", {"rescued": 1, "ignored": 1}, 1),
    ("playbook.recap", {"unreachable": 1}, 1),
    ("playbook.end", {}, 1),
]


@pytest.mark.parametrize(("action", "detail", "count"), EVENTS)
def test_every_event_is_there(everything: Run, action: str, detail: dict[str, t.Any], count: int) -> None:
    assert len(everything.of(action, **detail)) == count, everything.of(action)


# The table of docs/logging.md: what happened, what we have of it, and the peer's event, if it has one that tells it.
BESIDE: list[tuple[str, list[tuple[str, dict[str, t.Any]]], str | None]] = [
    ("start of the run", [("playbook.start", {})], None),
    ("play", [("play.start", {})], "v2_playbook_on_play_start"),
    ("play without hosts", [("play.no_hosts", {})], None),
    ("task", [("task.start", {})], "v2_playbook_on_task_start"),
    ("handler", [("handler.start", {})], "v2_playbook_on_handler_task_start"),
    ("start on a host", [("task.host", {})], None),
    ("success", [("task.end", {"status": "ok"}), ("task.end", {"status": "changed"})], "v2_runner_on_ok"),
    ("failure", [("task.end", {"status": "failed"}), ("task.end", {"status": "ignored"})], "v2_runner_on_failed"),
    ("ignored", [("task.end", {"status": "ignored"})], None),
    ("unreachable", [("task.end", {"status": "unreachable"})], "v2_runner_on_unreachable"),
    ("skipped", [("task.end", {"status": "skipped"})], "v2_runner_on_skipped"),
    ("item", [("task.item", {})], None),
    ("try that was not the last", [("task.retry", {})], None),
    ("difference", [("task.diff", {})], None),
    ("notification", [("handler.notify", {})], None),
    ("included file", [("task.include", {})], None),
    ("asynchronous task", [("task.async", {})], None),
    ("recap", [("playbook.end", {})], "v2_playbook_on_stats"),
]


@pytest.mark.parametrize(("what", "ours", "peers"), BESIDE)
def test_beside_its_peer(everything: Run, what: str, ours: list[tuple[str, dict[str, t.Any]]], peers: str | None) -> None:
    told = [json.loads(line) for line in everything.screen.splitlines() if line.startswith("{")]
    count = sum(len(everything.of(action, **detail)) for action, detail in ours)
    assert count, what
    if peers:
        assert count == sum(event["_event"] == peers for event in told), what


def test_the_peer_has_no_event_that_we_have_not(everything: Run) -> None:
    told = {json.loads(line)["_event"] for line in everything.screen.splitlines() if line.startswith("{")}
    assert told == {peers for _what, _ours, peers in BESIDE if peers}


def test_names_are_as_the_file_has_them(everything: Run) -> None:
    names = {event["resource"]["name"] for event in everything.events if "name" in event["resource"]}
    assert {"Everything {{ word }}", "Say {{ word }}", "The handler", "Included"} <= names
    assert not any("rendered" in name for name in names)


def test_what_a_rule_knows_is_redacted(everything: Run) -> None:
    (failed,) = everything.of("task.end", status="failed")
    assert failed["reason"].endswith(" is why")
    assert failed["redactions"] == {"test-key": 1}
    assert "TK123456789012" not in ansible_runs.left(everything.folder)


def test_places_and_ids(everything: Run) -> None:
    (run,) = {event["trace_id"] for event in everything.events}
    assert everything.path.stem == run
    (say,) = [event for event in everything.of("task.start") if event["resource"]["name"] == "Say {{ word }}"]
    assert say["detail"]["path"].endswith("play.yml:8")
    ends = [event for event in everything.of("task.end") if event["resource"]["task"] == say["resource"]["task"]]
    assert [end["resource"]["host"] for end in ends] == ["here"]
    assert ends[0]["detail"]["duration_us"] > 0


def test_the_journal_is_sealed_for_its_owner_alone(everything: Run) -> None:
    assert everything.problems() == []
    assert [event["seq"] for event in everything.events] == list(range(1, len(everything.events) + 1))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (everything.folder, everything.path, everything.folder / "keys/journal.key")}
    assert modes == {"journals": 0o700, everything.path.name: 0o600, "journal.key": 0o600}


Mend = t.Callable[[list[bytes]], list[bytes]]
TAMPERED: list[tuple[str, Mend]] = [
    ("a changed word", lambda lines: [*lines[:5], lines[5].replace(b"task", b"tusk"), *lines[6:]]),
    ("a line gone", lambda lines: [*lines[:5], *lines[6:]]),
    ("two lines swapped", lambda lines: [*lines[:5], lines[6], lines[5], *lines[7:]]),
    ("a line twice", lambda lines: [*lines[:6], *lines[5:]]),
    ("the end cut off", lambda lines: lines[:-3]),
    ("half of the last line", lambda lines: [*lines[:-1], lines[-1][:20]]),
    ("a line more", lambda lines: [*lines, lines[-1]]),
    ("half a line more", lambda lines: [*lines, b'{"v":1']),
    ("all gone", lambda _lines: []),
]


@pytest.mark.parametrize(("what", "mend"), TAMPERED)
def test_a_change_is_found(everything: Run, tmp_path: pathlib.Path, what: str, mend: Mend) -> None:
    path = tmp_path / everything.path.name
    whole = everything.path.read_bytes()
    sealed = journal.seal_of(everything.path).read_bytes()
    public = journal.public_key(everything.folder)
    journal.seal_of(path).write_bytes(sealed)
    path.write_bytes(whole)
    assert journal.verify(path, public) == []
    changed = b"\n".join(mend(whole.splitlines()))
    path.write_bytes(changed if what.startswith("half") or not changed else changed + b"\n")
    assert journal.verify(path, public), what


def test_a_journal_without_its_seal_or_with_another_key_is_found(everything: Run, tmp_path: pathlib.Path) -> None:
    path = tmp_path / everything.path.name
    path.write_bytes(everything.path.read_bytes())
    assert "it has no seal" in journal.verify(path, journal.public_key(everything.folder))[0]
    other = ansible_runs.run(tmp_path, [play()], DOCKERSANDBOX_JSONL_RULES=ansible_runs.rules(tmp_path))
    assert "not signed with" in journal.verify(everything.path, journal.public_key(other.folder))[0]


def test_the_journals_are_read_and_proven_by_a_module(everything: Run, tmp_path: pathlib.Path) -> None:
    told = modules.run("audit_log_info", journals=str(everything.folder), action="task.end", limit=1000)
    assert told["records"] == everything.of("task.end")
    assert (told["proven"], told["counts"]) == (True, {"journals": 1})
    copy = shutil.copytree(everything.folder, tmp_path / "copy")
    changed = copy / everything.path.name
    changed.write_bytes(changed.read_bytes().replace(b"playbook.start", b"playbook.stort"))
    told = modules.run("audit_log_info", journals=str(copy))
    assert not told["proven"]
    assert told["problems"] == [f"{changed} line 1 (record 1): it was changed after it was written"]


# -- no_log


class Secrets:
    """The secrets of generated plays, by the variable that holds them."""

    def __init__(self, seed: int) -> None:
        self.choice = random.Random(seed)
        self.values = {"secret": f"canary{seed}x0"}

    def named(self) -> str:
        """Return a new secret as text that is rendered may hold it: by its variable."""
        name = f"secret_{len(self.values)}"
        self.values[name] = f"canary{len(self.values)}x{self.choice.randrange(10**12)}"
        return f"{{{{ {name} }}}}"

    def given(self) -> str:
        """Return a new secret, as often as not in clear: so it may stand in a task that is under no_log."""
        text = self.named()
        return self.choice.choice((text, list(self.values.values())[-1]))


Task = dict[str, t.Any]
Shape = t.Callable[[Secrets, Task], list[Task]]


def _named(new: Secrets, hide: Task) -> list[Task]:
    return [{"name": f"Log in with {new.named()}", "ansible.builtin.debug": {"msg": new.given()}, **hide}]


def _command(new: Secrets, hide: Task) -> list[Task]:
    return [{"ansible.builtin.command": {"argv": ["echo", new.given()]}, "register": "said", "notify": "Hidden {{ secret }}", **hide}]


def _registered(new: Secrets, hide: Task) -> list[Task]:
    used = {"name": "use {{ said.msg }}", "ansible.builtin.debug": {"msg": "{{ said }}"}, "loop": ["{{ said.msg }}"], **hide}
    return [{"ansible.builtin.debug": {"msg": new.given()}, "register": "said", **hide}, used]


def _fails(new: Secrets, hide: Task) -> list[Task]:
    return [{"ansible.builtin.fail": {"msg": new.given()}, "ignore_errors": True, **hide}]


def _loop(new: Secrets, hide: Task) -> list[Task]:
    task = {"name": "item {{ item }}", "ansible.builtin.debug": {"msg": "{{ item }}"}, "loop": [new.given(), {"password": new.given()}]}
    return [{**task, "loop_control": {"label": new.given()}, **hide}]


def _failing_loop(new: Secrets, hide: Task) -> list[Task]:
    return [{"ansible.builtin.fail": {"msg": "{{ item }}"}, "loop": [new.given(), new.given()], "ignore_errors": True, **hide}]


def _skipped(new: Secrets, hide: Task) -> list[Task]:
    new.named()
    return [{"ansible.builtin.debug": {"msg": new.given()}, "when": f"secret == '{list(new.values.values())[-1]}'", **hide}]


def _diff(new: Secrets, hide: Task) -> list[Task]:
    place = f"{{{{ playbook_dir }}}}/{new.given()}"
    return [{"ansible.builtin.copy": {"dest": place, "content": new.given(), "mode": "0600"}, "diff": True, **hide}]


def _retry(new: Secrets, hide: Task) -> list[Task]:
    return [{"ansible.builtin.fail": {"msg": new.given()}, "until": False, "retries": 1, "delay": 0, "ignore_errors": True, **hide}]


def _facts(new: Secrets, hide: Task) -> list[Task]:
    used = {"name": "use {{ token }}", "ansible.builtin.assert": {"that": ["token == 'other'"], "fail_msg": "{{ token }}"}, "ignore_errors": True}
    return [{"ansible.builtin.set_fact": {"token": new.given()}, **hide}, {**used, **hide}]


def _delegated(new: Secrets, hide: Task) -> list[Task]:
    return [{"ansible.builtin.debug": {"msg": new.given()}, "delegate_to": "there", "vars": {"ansible_user": new.given()}, **hide}]


def _block(new: Secrets, hide: Task) -> list[Task]:
    inner = {**_fails(new, {})[0], "ignore_errors": False}
    return [{"block": [inner], "rescue": _named(new, {}) + _loop(new, {}), "always": _facts(new, {}), **hide}]


def _included(new: Secrets, hide: Task) -> list[Task]:
    return [{"ansible.builtin.include_tasks": {"file": "inner.yml", "apply": dict(hide)}, "vars": {"inner": new.given()}, **hide}]


def _undefined(new: Secrets, hide: Task) -> list[Task]:
    return [{"ansible.builtin.debug": {"msg": f"{{{{ nothing_of_the_kind['{new.given()}'] }}}}"}, "ignore_errors": True, **hide}]


def _module_fails(new: Secrets, hide: Task) -> list[Task]:
    return [{"ansible.builtin.command": {"argv": ["ls", f"/{new.given()}"]}, "environment": {"TOKEN": new.given()}, "ignore_errors": True, **hide}]


def _async(new: Secrets, hide: Task) -> list[Task]:
    return [{"ansible.builtin.command": {"argv": ["ls", f"/{new.given()}"]}, "async": 5, "poll": 1, "ignore_errors": True, **hide}]


SHAPES: list[Shape] = [
    _named, _command, _registered, _fails, _loop, _failing_loop, _skipped, _diff, _retry, _facts, _delegated, _block, _included,
    _undefined, _module_fails,
]  # fmt: skip
INNER = [{"name": "inner {{ inner }}", "ansible.builtin.debug": {"msg": "{{ inner }}"}}]
# By a keyword of the task, by a template that is only true at run time, by one that cannot be rendered, and for the whole play.
WAYS: dict[str, tuple[Task, Task]] = {
    "task": ({"no_log": True}, {}),
    "template": ({"no_log": "{{ hide_it }}"}, {}),
    "broken": ({"no_log": "{{ nothing_of_the_kind }}", "ignore_errors": True}, {}),
    "play": ({}, {"no_log": True}),
}


def generated(new: Secrets, hide: Task, keywords: Task, more: t.Sequence[Shape] = ()) -> Task:
    """Return a play of all shapes, shuffled and nested."""
    tasks: list[Task] = []
    for shape in [*new.choice.sample(SHAPES, len(SHAPES)), *more]:
        made = shape(new, hide)
        tasks += [{"block": made, **hide}] if new.choice.random() < 0.3 else made
    handlers = [{"name": "Hidden {{ secret }}", "ansible.builtin.debug": {"msg": new.given()}, **hide}]
    return play(*tasks, handlers=handlers, vars={"hide_it": True}, **keywords)


def run_generated(folder: pathlib.Path, plays: list[Task], new: Secrets, **more: str) -> Run:
    (folder / "inner.yml").write_text(json.dumps(INNER), encoding="ascii")
    (folder / "secrets.json").write_text(json.dumps(new.values), encoding="ascii")
    rules = ansible_runs.rules(folder)
    return ansible_runs.run(folder, plays, "--diff", "-e", "@secrets.json", DOCKERSANDBOX_JSONL_RULES=rules, **more)


LEAKS: list[tuple[int, str, dict[str, str]]] = [
    (1, "linear", {}),
    (2, "free", {}),
    (3, "linear", {"ANSIBLE_NO_LOG": "true"}),
]


@pytest.mark.parametrize(("seed", "strategy", "more"), LEAKS)
def test_no_log_never_leaks(tmp_path: pathlib.Path, seed: int, strategy: str, more: dict[str, str]) -> None:
    new = Secrets(seed)
    ways = WAYS if not more else {"configuration": ({}, {})}
    plays = [generated(new, hide, {**keywords, "strategy": strategy}, [_async] * (way == "task")) for way, (hide, keywords) in ways.items()]
    run = run_generated(tmp_path, plays, new, **more)
    assert len(run.of("play.start")) == len(ways), run.screen + run.warnings
    assert len(new.values) > len(SHAPES) * len(ways)
    assert len(run.of("task.end")) > len(SHAPES) * len(ways)
    assert run.of("task.start", no_log=True)
    left = ansible_runs.left(run.folder)
    assert {name for name, secret in new.values.items() if secret in left} == set()
    assert run.problems() == []


def test_without_no_log_the_same_plays_would_show(tmp_path: pathlib.Path) -> None:
    """That nothing leaks above is no merit of plays in which there is nothing to leak."""
    new = Secrets(4)
    run = run_generated(tmp_path, [generated(new, {}, {})], new)
    left = ansible_runs.left(run.folder)
    assert sum(secret in left for secret in new.values.values()) > len(SHAPES) / 2, run.screen + run.warnings


LITERAL = "hunter2hunter2"
FIELD = "[REDACTED:secret-field:"
ARGUMENTS: list[tuple[str, dict[str, t.Any], str]] = [
    ("under no_log", {"ansible.builtin.debug": {"msg": LITERAL}, "no_log": True}, ""),
    ("by the argument's name", {"ansible.builtin.uri": {"url": "http://127.0.0.1:1/", "url_password": LITERAL}, "ignore_errors": True}, FIELD),
    ("deep in the arguments", {"ansible.builtin.set_fact": {"it": {"api_key": LITERAL, "list": [{"Passwd": LITERAL}]}}}, FIELD),
    ("a long one, cut", {"ansible.builtin.debug": {"msg": "x" * 290 + " password=" + LITERAL}}, "x" * 290),
    ("very many", {"ansible.builtin.set_fact": {f"name_{number}": "x" * 100 for number in range(100)}}, '"…"'),
    ("only when rendered", {"ansible.builtin.debug": {"msg": "{{ literal }}"}, "name": "say {{ literal }}"}, "{{ literal }}"),
]


def test_arguments(tmp_path: pathlib.Path) -> None:
    (tmp_path / "v.json").write_text(json.dumps({"literal": LITERAL}), encoding="ascii")
    # The rules are those that come with the collection.
    run = ansible_runs.run(tmp_path, [play(*(task for _what, task, _shown in ARGUMENTS))], "-e", "@v.json")
    shown = [event["detail"].get("arguments", "") for event in run.of("task.start")]
    for (what, _task, due), found in zip(ARGUMENTS, shown, strict=True):
        assert due in found, what
    left = ansible_runs.left(run.folder)
    assert LITERAL not in left
    assert max(map(len, shown)) < 2 * journal.MOST_ARGUMENTS
    assert run.problems() == []


def test_a_vaulted_value_is_never_decrypted(tmp_path: pathlib.Path) -> None:
    (tmp_path / "pass").write_text("pass\n", encoding="ascii")
    command = ["ansible-vault", "encrypt_string", "--vault-password-file", "pass", LITERAL]
    vaulted = subprocess.run(command, cwd=tmp_path, env=ansible_runs.environment(tmp_path), capture_output=True, text=True, check=True).stdout
    text = "- hosts: here\n  gather_facts: false\n  tasks:\n    - ansible.builtin.set_fact:\n        it: " + vaulted.replace("\n", "\n        ").rstrip() + "\n"
    run = ansible_runs.run(tmp_path, text, "--vault-password-file", "pass", DOCKERSANDBOX_JSONL_RULES=ansible_runs.rules(tmp_path))
    assert run.code == 0, run.screen + run.warnings
    assert run.of("task.start", arguments='{"it": "(EncryptedString)"}')
    assert LITERAL not in ansible_runs.left(run.folder)


# -- how it ends, and what stands in its way


def test_check_mode_and_tags_are_told(tmp_path: pathlib.Path) -> None:
    tasks = [{"ansible.builtin.copy": {"dest": str(tmp_path / "out"), "content": "x", "mode": "0600"}, "tags": ["a"]}]
    run = ansible_runs.run(tmp_path, [play(*tasks)], "--check", "--tags", "a", DOCKERSANDBOX_JSONL_RULES=ansible_runs.rules(tmp_path))
    assert run.of("playbook.start", check=True, tags="a")
    assert run.of("play.start", check=True)
    assert run.of("task.start", check=True, tags="a")
    assert run.of("task.end", check=True, status="changed")


def test_a_run_that_is_interrupted_is_sealed(tmp_path: pathlib.Path) -> None:
    begun = tmp_path / "begun"
    task = {"ansible.builtin.command": {"argv": ["sh", "-c", f"touch {begun}; exec sleep 30"]}}
    (tmp_path / "play.yml").write_text(json.dumps([play(task)]), encoding="ascii")
    env = ansible_runs.environment(tmp_path, DOCKERSANDBOX_JSONL_RULES=ansible_runs.rules(tmp_path))
    journals = tmp_path / "journals"
    with subprocess.Popen(["ansible-playbook", "play.yml"], cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        # Not before it works: an interrupt that comes while Ansible forks is lost on it.
        for _try in range(200):
            if begun.exists():
                break
            time.sleep(0.1)
        (path,) = journals.glob("*.jsonl")
        assert b"task.host" in path.read_bytes()
        assert journal.verify(path, journal.public_key(journals)) == []
        assert not journal.seal_of(path).exists()
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert journal.verify(path, journal.public_key(journals)) == []
    assert journal.seal_of(path).exists()
    last = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    assert (last["action"], last["outcome"], last["reason"]) == ("playbook.end", "failure", "it was ended early")


def _blocked(folder: pathlib.Path) -> dict[str, str]:
    (folder / "journals").write_text("", encoding="ascii")
    return {"DOCKERSANDBOX_JSONL_RULES": ansible_runs.rules(folder)}


def _open_key(folder: pathlib.Path) -> dict[str, str]:
    ansible_runs.run(folder, [play()], DOCKERSANDBOX_JSONL_RULES=ansible_runs.rules(folder))
    (folder / "journals/keys/journal.key").chmod(0o644)
    return {"DOCKERSANDBOX_JSONL_RULES": ansible_runs.rules(folder)}


def _bad_rule(folder: pathlib.Path) -> dict[str, str]:
    (folder / "bad.yml").write_text("logging_rules:\n  - {id: broken, regex: '(', keywords: [x]}\n", encoding="ascii")
    return {"DOCKERSANDBOX_JSONL_RULES": str(folder / "bad.yml")}


BLOCKED: list[tuple[str, t.Callable[[pathlib.Path], dict[str, str]], str]] = [
    ("a file in the folder's place", _blocked, "journals: "),
    ("a key that others may read", _open_key, "its mode is 0644"),
    ("no rules", lambda folder: {"DOCKERSANDBOX_JSONL_RULES": str(folder / "gone.yml")}, "without the redactor's rules nothing is written"),
    ("a broken rule", _bad_rule, "broken"),
]


@pytest.mark.parametrize(("what", "block", "said"), BLOCKED)
def test_what_stands_in_its_way_is_one_warning(tmp_path: pathlib.Path, what: str, block: t.Callable[[pathlib.Path], dict[str, str]], said: str) -> None:
    more = block(tmp_path)
    run = ansible_runs.run(tmp_path, [play({"ansible.builtin.debug": {"msg": "done"}})], **more)
    assert run.code == 0
    assert "done" in run.screen
    plain = " ".join(run.warnings.split())
    assert plain.count("this run is kept in no journal") == 1, what
    assert said in plain

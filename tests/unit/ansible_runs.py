# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs playbooks on this machine under the callback, and reads the journal they leave. Nothing of the machine is changed."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import sys
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import journal

CHECKOUT = pathlib.Path(__file__).parents[2]
# Of YAML, whose texts are of a type of Ansible's own.
HOSTS = """
all:
  vars: {ansible_connection: local, ansible_python_interpreter: /usr/bin/python3}
  hosts: {here: {}, there: {}}
"""


@dataclasses.dataclass
class Run:
    """What a playbook left: its exit code, its screen, and the events and the folder of its journal."""

    code: int
    screen: str
    warnings: str
    events: list[dict[str, t.Any]]
    folder: pathlib.Path

    @property
    def path(self) -> pathlib.Path:
        """The journal itself."""
        (path,) = self.folder.glob("*.jsonl")
        return path

    def of(self, action: str, **detail: t.Any) -> list[dict[str, t.Any]]:
        """Return the events of an *action* whose details are these."""
        return [event for event in self.events if event["action"] == action and detail.items() <= event.get("detail", {}).items()]

    def problems(self) -> list[str]:
        """Return what is wrong with the journal."""
        return journal.verify(self.path, journal.public_key(self.folder))


def environment(folder: pathlib.Path, **more: str) -> dict[str, str]:
    """Return the variables under which a playbook in *folder* runs with the callback."""
    (folder / "ansible.cfg").write_text("[defaults]\n", encoding="ascii")
    (folder / "hosts.yml").write_text(HOSTS, encoding="ascii")
    return {
        "PATH": f"{pathlib.Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
        "ANSIBLE_INVENTORY": str(folder / "hosts.yml"),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_ASYNC_DIR": str(folder / "async"),
        "ANSIBLE_REMOTE_TMP": str(folder / "tmp"),
        "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".collections"),
        "ANSIBLE_CALLBACKS_ENABLED": "dockersandbox.guardrails.jsonl",
        "DOCKERSANDBOX_JSONL_FOLDER": str(folder / "journals"),
        **more,
    }


def run(folder: pathlib.Path, plays: t.Any, *arguments: str, **more: str) -> Run:
    """Run *plays* (as data, which is YAML too) in *folder* and return what came of it; *more* are environment variables."""
    (folder / "play.yml").write_text(plays if isinstance(plays, str) else json.dumps(plays, indent=1), encoding="utf-8")
    env = environment(folder, **more)
    done = subprocess.run(
        ["ansible-playbook", "play.yml", *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=300
    )
    found = sorted((folder / "journals").glob("*.jsonl"))
    lines = found[-1].read_text(encoding="utf-8").splitlines() if found else []
    return Run(done.returncode, done.stdout, done.stderr, [json.loads(line) for line in lines], folder / "journals")


def play(*tasks: dict[str, t.Any], **keywords: t.Any) -> dict[str, t.Any]:
    """Return a play of these *tasks* on one host of this machine."""
    return {"hosts": "here", "gather_facts": False, "tasks": list(tasks), **keywords}


def rules(folder: pathlib.Path) -> str:
    """Return a file with one rule of the redactor's, so that a test says itself what a secret is."""
    path = folder / "rules.yml"
    path.write_text("logging_rules:\n  - {id: test-key, regex: 'TK[0-9]{12}', keywords: [tk]}\n", encoding="ascii")
    return str(path)


def left(folder: pathlib.Path) -> str:
    """Return all that the journals in *folder* hold, seals and keys too."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert files
    return "\n".join(path.read_bytes().decode("utf-8", "replace") for path in files)

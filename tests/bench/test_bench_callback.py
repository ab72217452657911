# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the callback costs an event, beside ``ansible.posix.jsonl`` in the same run."""

from __future__ import annotations

import json
import pathlib
import statistics
import subprocess
import sys
import typing as t

from unit import ansible_runs
from unit.ansible_runs import play

OURS, PEER = "dockersandbox.guardrails.jsonl", "ansible.posix.jsonl"
LINES = "".join(f"line {number}\n" for number in range(2000))


def tasks() -> list[dict[str, t.Any]]:
    """Return what playbooks are made of: short tasks, loops, a large file's diff, and all facts."""
    short = [{"name": f"say {{{{ {number} }}}}", "ansible.builtin.debug": {"msg": "{{ inventory_hostname }}"}} for number in range(100)]
    loop = {"ansible.builtin.debug": {"msg": "{{ item }}"}, "loop": "{{ range(100) | list }}"}
    command = [{"ansible.builtin.command": {"argv": ["head", "-c", "20000", "/usr/share/common-licenses/GPL-3"]}} for _number in range(10)]
    copy = {"ansible.builtin.copy": {"dest": "{{ playbook_dir }}/out", "content": LINES, "mode": "0600"}}
    return [*short, loop, *command, copy, *[{"ansible.builtin.setup": {}} for _number in range(3)]]


def test_an_event_beside_its_peer(tmp_path: pathlib.Path) -> None:
    (tmp_path / "play.yml").write_text(json.dumps([play(*tasks())]), encoding="ascii")
    env = ansible_runs.environment(tmp_path, ANSIBLE_STDOUT_CALLBACK=PEER)
    command = [sys.executable, str(pathlib.Path(__file__).with_name("callback_times.py")), "times.json", "play.yml", "--diff"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    taken = json.loads((tmp_path / "times.json").read_text(encoding="ascii"))
    median = {}
    for name in (OURS, PEER):
        times = sorted(taken[name])
        median[name] = statistics.median(times)
        worst, late = times[-1] / 1e6, times[len(times) * 99 // 100] / 1e6
        print(f"{name}: {len(times)} events, median {median[name] / 1e6:.2f} ms, mean {statistics.mean(times) / 1e6:.2f}, p99 {late:.2f}, worst {worst:.2f}")
    print(f"median to median {median[OURS] / median[PEER]:.2f}")

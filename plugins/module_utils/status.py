# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a host stands: its phases and their gates, its services and sandboxes, and what to do next; and whether all of it still verifies."""

from __future__ import annotations

import os
import pathlib
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import (
    audit,
    bundle,
    chain,
    dns_pins,
    gate,
    history,
    lock,
    recorder,
    sandboxes,
    seal,
    services,
    spec,
    workset,
)
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import DockerError
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.sandboxes import Host

# The phases that this release has; the others are not reported as missing.
BUILT = ("bootstrap", "env", "network", "fs", "logging", "rollback", "cost")


def gather(host: Host) -> dict[str, t.Any]:
    """Return how the host stands. *ok* is whether every built phase is sealed, and every service and sandbox runs as described."""
    phases = [
        {"phase": item.phase, "number": item.number, "gate": item.state, "since": item.time, "reason": item.reason}
        for item in gate.status(host.places.home)
        if item.phase in BUILT
    ]
    running = _services(host)
    boxes = []
    for name, description in sorted(sandboxes.read_stack(host.places).items()):
        try:
            reasons = host.differences(name, description)
        except DockerError as error:
            reasons = [str(error)]
        boxes.append(
            {
                "sandbox": name,
                "state": "; ".join(reasons) or "runs",
                "busy": sandboxes.holder(host.places, name),
                "cap": _cap(host, name, description),
                "uid": description["uid"],
                "originals": description["originals"],
                "bundles": _bundles(host, name),
            }
        )
    ok = all(item["gate"] == "sealed" for item in phases) and all(item["state"] == "runs" for item in (*running, *boxes))
    return {"ok": ok, "phases": phases, "services": running, "sandboxes": boxes, "next": _next(phases, running, boxes)}


def _services(host: Host) -> list[dict[str, t.Any]]:
    found = []
    there = services.Services(host.docker, host.places)
    for name, description in services.described(host.places).items():
        said: dict[str, t.Any] = {}
        try:
            if not (reasons := there.differences(name, description)):
                said = there.status(name, patience=1)
                reasons = [str(said[key]) for key in ("alarm", "problem") if said.get(key)]
        except (DockerError, OSError, recorder.RecorderError) as error:
            reasons = [str(error)]
        found.append({"service": name, "state": "; ".join(reasons) or "runs", "uid": description["uid"], "status": said})
    return found


def _cap(host: Host, name: str, description: dict[str, t.Any]) -> str:
    working_set = host.working_set(name, description)
    return f"{spec.human(working_set.size)} {working_set.cap()}" if working_set else "-"


def _bundles(host: Host, name: str) -> int:
    try:
        return sum(not entry.startswith(".") for entry in os.listdir(host.places.exports(name)))
    except FileNotFoundError:
        return 0


def _next(phases: list[dict[str, t.Any]], running: list[dict[str, t.Any]], boxes: list[dict[str, t.Any]]) -> list[str]:
    steps = [item["reason"] or f"run {gate.command(item['phase'])}" for item in phases if item["gate"] != "sealed"]
    steps += [f"run bin/sandbox up: service {item['service']} {item['state']}" for item in running if item["state"] != "runs"]
    steps += [f"run {gate.command('fs')}: sandbox {box['sandbox']} {box['state']}" for box in boxes if box["state"] != "runs"]
    if steps:
        return steps
    if not boxes:
        return ["declare a sandbox in configs/sandboxes.yml and run make site"]
    name = boxes[0]["sandbox"]
    return [
        f"bin/sandbox run {name} -- ls -la        run a command, leave a bundle",
        f"bin/sandbox shell {name}                look around",
        "ansible-playbook playbooks/verify.yml   prove that nothing was tampered with",
    ]


def table(known: dict[str, t.Any]) -> str:
    """Return what :func:`gather` told as a table for people."""
    phases = [
        (f"P{item['number']}", item["phase"], item["gate"], item["since"] or item["reason"] or "-") for item in known["phases"]
    ]
    boxes = [
        (box["sandbox"], box["state"], box["busy"] or "-", box["cap"].partition(":")[0], str(box["uid"]), str(box["bundles"]), box["originals"])
        for box in known["sandboxes"]
    ]
    parts = [columns(("", "Phase", "Gate", "Since"), phases)]
    if known["services"]:
        rows = [(item["service"], item["state"], str(item["uid"])) for item in known["services"]]
        parts.append(columns(("Service", "State", "Uid"), rows))
    if boxes:
        parts.append(columns(("Sandbox", "State", "Busy with", "Cap", "Uid", "Bundles", "Originals"), boxes))
    parts.append("Next:\n" + "\n".join(f"  {step}" for step in known["next"]))
    return "\n\n".join(parts)


def columns(head: tuple[str, ...], rows: t.Sequence[tuple[str, ...]]) -> str:
    """Return *rows* under *head*, in columns as wide as they must be."""
    widths = [max(len(row[index]) for row in (head, *rows)) for index in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


class Verified(t.NamedTuple):
    """What was verified (word → count) and every problem found, a line each."""

    counts: dict[str, int]
    problems: list[str]


def verify(host: Host, progress: workset.Progress | None = None, heads: t.Sequence[pathlib.Path] = ()) -> Verified:
    """Check every gate, lock, baseline, bundle, snapshot, pin and record of the host, and every byte of the originals; changes nothing.

    *heads*: files of heads of the log that were kept off the machine, besides those that were shipped to a folder.
    """
    problems: list[str] = []
    counts = {"gates": 0, "locks": 0, "baselines": 0, "bundles": 0, "snapshots": 0, "records": 0}
    for item in gate.status(host.places.home):
        counts["gates"] += item.state == "sealed"
        if item.state == "broken":
            problems.append(item.reason)
    for folder in (host.places.home, host.places.data):
        for path in lock.locked(pathlib.Path(folder), host.places.foreign) if os.path.isdir(folder) else []:
            counts["locks"] += 1
            if problem := lock.check(path):
                problems.append(str(problem))
    for name, description in sorted(sandboxes.read_stack(host.places).items()):
        working_set = host.working_set(name, description)
        if working_set is None:
            continue
        try:
            working_set.prove(progress, full=True)
            counts["baselines"] += 1
        except workset.WorkingSetError as error:
            problems += error.problems
        if workset.delta_mount_problem(working_set):
            problems.append(f"sandbox {name}: its snapshots cannot be read, since its working set is not mounted: run bin/sandbox up")
            continue
        kept = history.History(working_set)
        found = kept.problems()
        counts["snapshots"] += 0 if found else len(kept.register().snapshots)
        problems += found
    for made in sorted(pathlib.Path(host.places.home, "exports").glob("*/[!.]*")):
        public = host.places.public_key
        found = bundle.verify(str(made), seal.load_public(public), seal.rotations(public))
        counts["bundles"] += not found
        problems += found
    try:
        dns_pins.read(host.places)
    except seal.SealError as error:
        problems.append(str(error))
    try:
        if report := audit.proof(host.places, heads):
            counts["records"] = report.records
            problems += [str(problem) for problem in report.problems]
    except (chain.ChainError, seal.SealError, lock.LockError) as error:
        problems.append(str(error))
    return Verified(counts, problems)

# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done with snapshots goes on record, or is not done: on a real image, with an engine that has no container.

Needs root, loop devices and xfsprogs: a test that has not fails and says so.
"""

from __future__ import annotations

import http.server
import json
import pathlib
import socketserver
import subprocess
import tempfile
import threading
import typing as t

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import (
    events,
    frames,
    mounts,
    places,
    recorder,
    rollback,
    sandboxes,
    seal,
    workset,
)
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import Docker
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.history import History

SIZE = 300 << 20
DONE = ("unknown", "success")


class Recorder(socketserver.ThreadingUnixStreamServer):
    """Answers every event that the real one would take, and keeps it; *full*: refuses all, as the real one does on a full disk."""

    daemon_threads = True

    def __init__(self, path: str) -> None:
        pathlib.Path(path).parent.mkdir(parents=True)
        super().__init__(path, Answers)
        self.events: list[dict[str, t.Any]] = []
        self.full = False

    def take(self) -> list[tuple[str, str]]:
        """Return the action and the outcome of each event since the last call."""
        taken, self.events = self.events, []
        return [(event["action"], event["outcome"]) for event in taken]


class Answers(socketserver.BaseRequestHandler):
    """One connection to a recorder."""

    server: Recorder

    def handle(self) -> None:
        stream = frames.Frames()
        while data := self.request.recv(1 << 16):
            for text in stream.feed(data):
                event = frames.decode(text)
                events.check(event)
                if self.server.full:
                    answer: dict[str, t.Any] = {"error": "there is no room"}
                else:
                    self.server.events.append(event)
                    answer = {"seq": len(self.server.events), "id": event["id"]}
                self.request.sendall(frames.encode(answer))


class Engine(http.server.BaseHTTPRequestHandler):
    """An engine without a container, as far as it is asked."""

    def do_GET(self) -> None:
        """Know of none."""
        listed = self.path.split("?")[0].endswith("/containers/json")
        body = b"[]" if listed else b"{}"
        self.send_response(200 if listed else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_arguments: t.Any) -> None:
        """Say nothing."""


class Box(t.NamedTuple):
    """A sandbox with files ``one`` and ``two``, its host and its recorder."""

    host: sandboxes.Host
    kept: History
    recorder: Recorder

    @property
    def changed(self) -> pathlib.Path:
        """A file that the sandbox changes."""
        return pathlib.Path(self.kept.working_set.upper, "changed")

    @property
    def names(self) -> list[str]:
        """What its snapshots are called."""
        return [one.name for one, _digest in self.kept.register().snapshots.values()]

    def snapshot(self, name: str = "", **more: t.Any) -> rollback.Made:
        return rollback.snapshot(self.host, self.kept, "why", name=name, at_rest=True, **more)

    def restore(self, which: str, check: bool = False) -> rollback.Restored:
        return rollback.restore(self.host, self.kept, which, check=check, description={})


@pytest.fixture
def box() -> t.Iterator[Box]:
    """A sandbox that was changed, on a host whose phase ``rollback`` keeps one snapshot."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="guardrails-rollback-", dir="/var/tmp"))
    originals = folder / "originals"
    originals.mkdir()
    for name in ("one", "two"):
        (originals / name).write_text(f"{name}\n", encoding="ascii")
    at = places.Places(str(folder / "home"), str(folder / "data"), str(folder / "run"))
    servers: list[socketserver.BaseServer] = []
    try:
        pathlib.Path(at.host_key).parent.mkdir(parents=True)
        seal.ensure_key(at.host_key)
        item = workset.WorkingSet(at, "box", str(originals), 0, 0, SIZE)
        item.make_delta()
        item.seal_baseline(item.scan(), "first seal")
        part = {"image": "none", "originals": str(originals), "uid": 0, "gid": 0, "working_set": SIZE, **item.part()}
        # From when on there is a configuration, all that acts is recorded.
        configs = {at.rollback: {"every": 15, "last": 1, "hourly": 0, "daily": 0}, f"{at.home}/configs/services/recorder.json": {}}
        for path, content in {sandboxes.part_path(at, "env"): {"sandboxes": {"box": part}}, **configs}.items():
            pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
            pathlib.Path(path).write_text(json.dumps(content), encoding="ascii")
        log = Recorder(recorder.event_socket(at.run))
        servers += [log, socketserver.ThreadingUnixStreamServer(str(folder / "engine"), Engine)]
        for server in servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        made = Box(sandboxes.Host(Docker(str(folder / "engine")), at), History(item), log)
        made.changed.write_text("first\n", encoding="ascii")
        yield made
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for mount in reversed([mount.point for mount in mounts.mounted() if mount.point.startswith(f"{folder}/")]):
            mounts.unmount(mount)
        subprocess.run(["rm", "-rf", folder], check=True)


def pair(action: str) -> list[tuple[str, str]]:
    """Return the two events of an act that was done."""
    return [(action, outcome) for outcome in DONE]


def test_what_is_done_with_a_snapshot_is_on_record(box: Box) -> None:
    made = box.snapshot("first", checkpoint=True).snapshot
    assert made is not None
    first, last = box.recorder.events
    assert (first["sandbox"], first["reason"]) == ("box", "why")
    assert first["resource"] == {"snapshot": made.id, "name": "first", "checkpoint": True}
    assert last["detail"] == {"entries": made.entries, "files": made.files, "bytes": made.bytes}
    assert box.recorder.take() == pair("snapshot.make")

    assert not box.snapshot(reuse=True).new
    assert box.snapshot("other", check=True).new
    assert not box.restore("first").changed
    box.changed.write_text("later\n", encoding="ascii")
    assert box.restore("first", check=True).changed
    assert box.recorder.take() == []

    done = box.restore("first")
    assert done.saved is not None
    first, *_within, last = box.recorder.events
    assert first["resource"] == {"snapshot": f"{made.id} (first)", "path": ""}
    assert last["detail"] == {"saved": done.saved.id, "differences": 1}
    assert box.recorder.take() == [("snapshot.restore", "unknown"), *pair("snapshot.make"), ("snapshot.restore", "success")]
    assert box.changed.read_text(encoding="ascii") == "first\n"

    # The policy keeps the newest, and nobody has asked for another one to go.
    box.changed.write_text("third\n", encoding="ascii")
    box.snapshot("third")
    gone = box.recorder.events[2]
    assert (gone["resource"], gone["reason"]) == ({"snapshots": [done.saved.id]}, "the policy does not keep it")
    assert box.recorder.take() == [*pair("snapshot.make"), *pair("snapshot.remove")]

    rollback.remove(box.host, box.kept, "first", "not needed any more")
    assert box.recorder.events[0]["reason"] == "not needed any more"
    assert box.recorder.take() == pair("snapshot.remove")
    assert box.names == ["third"]


def test_what_a_snapshot_has_already_is_not_saved_again(box: Box) -> None:
    box.snapshot("first", checkpoint=True)
    box.changed.write_text("later\n", encoding="ascii")
    box.snapshot("second", checkpoint=True)
    for which, was, content in (("first", "second", "first\n"), ("second", "first", "later\n"), ("first", "second", "first\n")):
        saved = box.restore(which).saved
        assert (saved.name if saved else "", box.changed.read_text(encoding="ascii")) == (was, content)
    assert box.names == ["first", "second"]
    # As many bytes, but others: neither the one that was restored nor the newest.
    box.changed.write_text("again\n", encoding="ascii")
    saved = box.restore("second").saved
    assert saved is not None and saved.name == ""
    assert (box.names, box.changed.read_text(encoding="ascii")) == (["first", "second", ""], "later\n")
    box.restore(saved.id)
    assert box.changed.read_text(encoding="ascii") == "again\n"
    with box.kept.draft() as draft:
        draft.read(at_rest=True)
        draft.hash()
        assert draft.twin(saved.baseline) == saved
        assert draft.twin("of other originals") is None


def _snapshot(box: Box) -> None:
    box.snapshot("other")


def _restore(box: Box) -> None:
    box.restore("first")


def _remove(box: Box) -> None:
    rollback.remove(box.host, box.kept, "first", "not needed any more")


@pytest.mark.parametrize("act", [_snapshot, _restore, _remove])
def test_what_cannot_be_recorded_is_not_done(box: Box, act: t.Callable[[Box], None]) -> None:
    box.snapshot("first")
    box.changed.write_text("later\n", encoding="ascii")
    box.recorder.full = True
    before = sorted(path.name for path in pathlib.Path(box.kept.folder).iterdir())
    with pytest.raises(recorder.RecorderError, match="there is no room"):
        act(box)
    assert (box.names, box.changed.read_text(encoding="ascii")) == (["first"], "later\n")
    assert sorted(path.name for path in pathlib.Path(box.kept.folder).iterdir()) == before


def test_a_restore_that_did_not_end_is_on_record_and_so_is_its_end(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.snapshot("first")
    box.changed.write_text("later\n", encoding="ascii")
    box.recorder.take()

    def broken(_one: str, _other: str) -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(mounts, "exchange", broken)
        with pytest.raises(OSError, match="the disk is gone"):
            box.restore("first")
    assert box.recorder.events[-1]["reason"] == "the disk is gone"
    assert box.recorder.take() == [("snapshot.restore", "unknown"), *pair("snapshot.make"), ("snapshot.restore", "failure")]
    box.recorder.full = True
    with pytest.raises(recorder.RecorderError):
        box.kept.open()
    assert box.changed.read_text(encoding="ascii") == "later\n"
    box.recorder.full = False
    box.kept.open()
    assert box.recorder.take() == pair("snapshot.finish")
    assert box.changed.read_text(encoding="ascii") == "first\n"


def test_what_the_clock_does_and_finds_is_on_record(box: Box) -> None:
    due = pathlib.Path(box.host.places.run, "due", "box")
    assert rollback.scheduled(box.host).problems == []
    assert box.recorder.take() == pair("snapshot.make")
    assert rollback.scheduled(box.host) == ([], [])
    pathlib.Path(box.kept.working_set.originals, "one").write_text("from outside\n", encoding="ascii")
    due.unlink()
    (said,) = rollback.scheduled(box.host).problems
    (found,) = box.recorder.events
    assert (found["class"], found["sandbox"], found["reason"]) == ("detection_finding", "box", said)
    assert "changed one" in said
    assert box.recorder.take() == [("baseline.differ", "failure")]
    box.recorder.full = True
    due.unlink()
    assert rollback.scheduled(box.host).problems == [said, "sandbox box: there is no room"]
    box.changed.write_text("later\n", encoding="ascii")
    due.unlink()
    assert rollback.scheduled(box.host).problems == ["sandbox box: there is no room"]

# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The few calls of the Docker Engine API that the collection needs, over the engine's unix socket.

The standard library alone, because it runs on hosts that have nothing else, and because starting the ``docker`` client
or importing its SDK would cost more than the call. Source: Docker Engine API 1.41 (Docker 20.10).
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import re
import select
import signal
import socket
import struct
import threading
import time
import typing as t
import urllib.parse

SOCKET = "/var/run/docker.sock"
API = "v1.41"
# The engine paints what a build writes to its errors.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Seconds that the engine may take to end or describe a container, which it hardly needs; a runtime may never answer it.
PATIENCE = 20
KILLED = 128 + signal.SIGKILL
_DEAD = 1  # seconds between two looks whether a container lives
_CUT = 2  # seconds that the last output of a command has to come when its container has died


class DockerError(Exception):
    """The engine refused a call, or did not answer; the text is one line for the operator."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(" ".join(text.split()))
        self.status = status


class Late(DockerError):
    """What was asked for did not come within its time."""


class Connection(http.client.HTTPConnection):
    """HTTP over the unix socket at *path*; *timeout* in seconds."""

    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Docker:
    """A client of one engine.

    *timeout* bounds each call in seconds; streams (attach, exec, build) take their own.
    """

    def __init__(self, path: str = SOCKET, timeout: float = 60) -> None:
        self.path = path
        self.timeout = timeout

    def call(
        self,
        method: str,
        path: str,
        body: t.Any = None,
        query: t.Mapping[str, t.Any] | None = None,
        timeout: float | None = None,
        missing: t.Any = DockerError,
    ) -> t.Any:
        """Return the decoded JSON of one call; *missing* is returned for a 404 instead of raising, when given."""
        with self.open(method, path, body, query, timeout) as response:
            text = response.read()
            if response.status == 404 and missing is not DockerError:
                return missing
            _raise_for(response.status, text)
            return json.loads(text) if text else None

    @contextlib.contextmanager
    def open(
        self,
        method: str,
        path: str,
        body: t.Any = None,
        query: t.Mapping[str, t.Any] | None = None,
        timeout: float | None = None,
        headers: t.Mapping[str, str] | None = None,
    ) -> t.Iterator[http.client.HTTPResponse]:
        """Send one request and yield its response, unread. A dict *body* goes as JSON, bytes or a file as they are."""
        connection = Connection(self.path, timeout or self.timeout)
        head = dict(headers or {})
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            head.setdefault("Content-Type", "application/json")
        encoded = urllib.parse.urlencode({k: v for k, v in (query or {}).items() if v is not None})
        try:
            connection.request(method, f"/{API}{path}" + (f"?{encoded}" if encoded else ""), body, head)
            yield connection.getresponse()
        except TimeoutError as error:
            raise Late(f"Docker gave no answer to {method} {path} within {connection.timeout:g} s; see its log") from error
        except (OSError, http.client.HTTPException) as error:
            raise DockerError(f"Docker does not answer on {self.path}: {error}; start it, or see its log") from error
        finally:
            connection.close()

    # -- containers

    def inspect(self, name: str) -> dict[str, t.Any] | None:
        """Return what the engine knows of a container, or None when there is none of that name.

        Raises Late when the engine waits for the container's runtime.
        """
        return t.cast("dict[str, t.Any] | None", self.call("GET", f"/containers/{_quote(name)}/json", timeout=PATIENCE, missing=None))

    def containers(self, *labels: str) -> list[dict[str, t.Any]]:
        """Return all containers, stopped ones too, that carry every one of *labels* (``key`` or ``key=value``)."""
        filters = json.dumps({"label": list(labels)})
        return t.cast("list[dict[str, t.Any]]", self.call("GET", "/containers/json", query={"all": 1, "filters": filters}))

    def running(self, name: str) -> dict[str, t.Any] | None:
        """Return what the engine lists of a container that runs, None for one that does not; it never waits for a runtime."""
        filters = json.dumps({"name": [f"^/{re.escape(name)}$"]})
        found = self.call("GET", "/containers/json", query={"filters": filters})
        return t.cast("dict[str, t.Any]", found[0]) if found else None

    def create(self, name: str, config: dict[str, t.Any]) -> str:
        """Create a container and return its id."""
        return str(self.call("POST", "/containers/create", config, {"name": name})["Id"])

    def start(self, name: str) -> None:
        """Start a container; nothing happens when it runs already."""
        self.call("POST", f"/containers/{_quote(name)}/start")

    def stop(self, name: str, grace: int = 2) -> None:
        """Stop a container, killing it after *grace* seconds; a missing one is fine."""
        path = f"/containers/{_quote(name)}/stop"
        try:
            self.call("POST", path, query={"t": grace}, timeout=grace + PATIENCE, missing=None)
        except Late:
            self._kill_from_outside(name)
            self.call("POST", path, query={"t": grace}, missing=None)

    def kill(self, name: str) -> None:
        """Kill a container's processes at once; one that does not run is fine."""
        try:
            self.call("POST", f"/containers/{_quote(name)}/kill", timeout=PATIENCE, missing=None)
        except DockerError as error:
            if error.status != 409:
                self._kill_from_outside(name)

    def remove(self, name: str) -> None:
        """Kill and remove a container with its anonymous volumes; a missing one is fine."""
        try:
            self.call("DELETE", f"/containers/{_quote(name)}", query={"force": 1, "v": 1}, timeout=PATIENCE, missing=None)
        except Late:
            self._kill_from_outside(name)
            # The engine is still at the first call, and refuses a second one.
            deadline = time.monotonic() + self.timeout
            while self.inspect(name) is not None:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _kill_from_outside(self, name: str) -> None:
        """Kill what runs in a container's cgroups: the engine would ask its runtime, and wait for one that hangs."""
        container = self.running(name)
        for _attempt in range(50):
            if container is None or not (found := _processes(container["Id"])):
                break
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def logs(self, name: str, lines: int) -> str:
        """Return the last *lines* that a container wrote, both streams; nothing for one that is not there."""
        query = {"stdout": 1, "stderr": 1, "tail": lines}
        with self.open("GET", f"/containers/{_quote(name)}/logs", query=query, timeout=PATIENCE) as response:
            data = response.read() if response.status == 200 else b""
        said = bytearray()
        while len(data) >= 8:
            length = struct.unpack(">xxxxL", data[:8])[0]
            said += data[8 : 8 + length]
            data = data[8 + length :]
        return said.decode("utf-8", "replace")

    def pause(self, name: str) -> None:
        """Freeze every process of a container."""
        self.call("POST", f"/containers/{_quote(name)}/pause")

    def unpause(self, name: str) -> None:
        """Thaw a container."""
        self.call("POST", f"/containers/{_quote(name)}/unpause")

    # -- volumes

    def volume(self, name: str) -> dict[str, t.Any] | None:
        """Return a volume's description, or None."""
        return t.cast("dict[str, t.Any] | None", self.call("GET", f"/volumes/{_quote(name)}", missing=None))

    def create_volume(self, name: str, options: dict[str, str], labels: dict[str, str]) -> None:
        """Create a volume of the local driver with mount *options* (``type``, ``device``, ``o``)."""
        body = {"Name": name, "Driver": "local", "DriverOpts": options, "Labels": labels}
        self.call("POST", "/volumes/create", body)

    def remove_volume(self, name: str) -> None:
        """Remove a volume; a missing one is fine."""
        self.call("DELETE", f"/volumes/{_quote(name)}", missing=None)

    # -- networks

    def network(self, name: str) -> dict[str, t.Any] | None:
        """Return a network's description, or None."""
        return t.cast("dict[str, t.Any] | None", self.call("GET", f"/networks/{_quote(name)}", missing=None))

    def create_network(self, name: str, options: dict[str, str], labels: dict[str, str]) -> None:
        """Create a network of the bridge driver, for IPv4 alone, with the driver's *options*."""
        body = {"Name": name, "CheckDuplicate": True, "Driver": "bridge", "EnableIPv6": False, "Options": options, "Labels": labels}
        self.call("POST", "/networks/create", body)

    def remove_network(self, name: str) -> None:
        """Remove a network; a missing one is fine."""
        self.call("DELETE", f"/networks/{_quote(name)}", missing=None)

    # -- images

    def image(self, name: str) -> dict[str, t.Any] | None:
        """Return an image's description, or None."""
        return t.cast("dict[str, t.Any] | None", self.call("GET", f"/images/{_quote(name)}/json", missing=None))

    def import_image(self, tar: t.BinaryIO, repository: str, tag: str, changes: t.Sequence[str] = ()) -> None:
        """Make an image of one layer from the root file system in *tar*; *changes* are Dockerfile instructions."""
        query = [("fromSrc", "-"), ("repo", repository), ("tag", tag), *(("changes", change) for change in changes)]
        self._progress("/images/create?" + urllib.parse.urlencode(query), tar, {"Content-Type": "application/x-tar"})

    def pull(self, name: str) -> None:
        """Pull an image by its full name (``registry/name@sha256:…``)."""
        self._progress("/images/create?" + urllib.parse.urlencode({"fromImage": name}), b"", {})

    def build(self, context: bytes, tag: str, build_args: dict[str, str], said: t.Callable[[str], None] | None = None) -> None:
        """Build an image from a tar *context*, with the host's network; its output goes to *said*, cut anywhere."""
        query = {"t": tag, "networkmode": "host", "rm": 1, "forcerm": 1, "buildargs": json.dumps(build_args)}
        headers = {"Content-Type": "application/x-tar"}
        self._progress("/build?" + urllib.parse.urlencode(query), context, headers, said)

    def prune_images(self, label: str) -> None:
        """Remove all images without a name that carry *label* (``key=value``)."""
        filters = json.dumps({"dangling": ["true"], "label": [label]})
        self.call("POST", "/images/prune", query={"filters": filters}, timeout=600)

    def _progress(
        self,
        path: str,
        body: t.BinaryIO | bytes,
        headers: dict[str, str],
        said: t.Callable[[str], None] | None = None,
    ) -> None:
        last = ""
        with self.open("POST", path, body, timeout=3600, headers=headers) as response:
            if response.status >= 400:
                _raise_for(response.status, response.read())
            for line in response:
                if not line.strip():
                    continue
                message = json.loads(line)
                # The engine answers 200 before it starts: a failure comes as a message in the stream.
                if "error" in message:
                    raise DockerError(f"{message['error']} (last output: {last})" if last else message["error"])
                text = _COLOUR.sub("", str(message.get("stream") or message.get("status") or ""))
                last = text.strip() or last
                if said:
                    said(text)

    # -- streams

    def exec_create(self, name: str, config: dict[str, t.Any], timeout: float = PATIENCE) -> str:
        """Prepare a command in a running container and return the id of the exec."""
        return str(self.call("POST", f"/containers/{_quote(name)}/exec", config, timeout=timeout)["Id"])

    def exec_start(self, exec_id: str, tty: bool) -> Stream:
        """Start a prepared command and return its stream, which is there before the command has begun."""
        return self._hijack(f"/exec/{exec_id}/start", {"Detach": False, "Tty": tty}, tty)

    def exec_begun(self, exec_id: str, stream: Stream, timeout: float) -> None:
        """Wait until a started command has begun; Late when that takes longer than *timeout* seconds."""
        deadline = time.monotonic() + timeout
        while not select.select([stream.sock], [], [], 0.01)[0]:
            state = self.call("GET", f"/exec/{exec_id}/json", timeout=max(0.1, deadline - time.monotonic()))
            if state["Pid"] or state["ExitCode"] is not None:
                return
            if time.monotonic() > deadline:
                raise Late(f"the command has not begun within {timeout:g} s")

    def exec_code(self, exec_id: str) -> int | None:
        """Return the exit code of an ended exec, None while it runs."""
        state = self.call("GET", f"/exec/{exec_id}/json", timeout=PATIENCE, missing=None)
        # The engine forgets the commands of a container that has died.
        if state is None:
            return KILLED
        return None if state["Running"] or state["ExitCode"] is None else int(state["ExitCode"])

    def exec_resize(self, exec_id: str, rows: int, columns: int) -> None:
        """Tell a command on a terminal its new size in characters."""
        self.call("POST", f"/exec/{exec_id}/resize", query={"h": rows, "w": columns})

    def attach(self, name: str) -> Stream:
        """Attach to a created container's standard streams, before it is started."""
        return self._hijack(f"/containers/{_quote(name)}/attach?stream=1&stdin=1&stdout=1&stderr=1", None, False)

    def wait(self, name: str) -> int:
        """Wait until a container ends and return its exit code."""
        return int(self.call("POST", f"/containers/{_quote(name)}/wait", timeout=86400)["StatusCode"])

    def execute(
        self, name: str, argv: t.Sequence[str], user: str | None = None, timeout: float = 10, limit: int = 1 << 20
    ) -> tuple[int, bytes]:
        """Run *argv* in a container and return its exit code and its output (both streams, at most *limit* bytes).

        Raises Late when it takes longer than *timeout* seconds: an exec can hang, so each has its own deadline.
        """
        config: dict[str, t.Any] = {"Cmd": list(argv), "AttachStdout": True, "AttachStderr": True}
        if user is not None:
            config["User"] = user
        deadline = time.monotonic() + timeout
        output = bytearray()
        try:
            exec_id = self.exec_create(name, config, timeout)
            stream = self.exec_start(exec_id, tty=False)
            try:
                with self.survived(name, stream) as died:
                    while True:
                        stream.sock.settimeout(max(0.01, deadline - time.monotonic()))
                        if not (chunk := stream.read()):
                            break
                        output += chunk[1][: max(0, limit - len(output))]
            finally:
                stream.close()
        except (TimeoutError, Late) as error:
            raise Late(f"a command in {name} gave no answer within {timeout:g} s") from error
        if died.is_set():
            raise DockerError(f"{name} died while {argv[0]} ran in it")
        code = self.exec_code(exec_id)
        if code is None:
            raise DockerError(f"{argv[0]} in {name} closed its output but still runs")
        return code, bytes(output)

    @contextlib.contextmanager
    def survived(self, name: str, stream: Stream) -> t.Iterator[threading.Event]:
        """Yield what is set when the container of a command dies: the engine may leave its *stream* open then, for ever."""
        done, died = threading.Event(), threading.Event()

        def watch() -> None:
            while not done.wait(_DEAD):
                with contextlib.suppress(DockerError):
                    if self.running(name) is None:
                        died.set()
                        if not done.wait(_CUT):
                            stream.cut()
                        return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield died
        finally:
            done.set()
            watcher.join()

    def _hijack(self, path: str, body: dict[str, t.Any] | None, tty: bool) -> Stream:
        connection = Connection(self.path, self.timeout)
        try:
            headers = {"Connection": "Upgrade", "Upgrade": "tcp", "Content-Type": "application/json"}
            connection.request("POST", f"/{API}{path}", json.dumps(body).encode() if body else b"", headers)
            # Read by hand: http.client takes an answer that switches protocols for one without a body, and closes it.
            reader = connection.sock.makefile("rb")
            status = int(reader.readline().split()[1])
            head = http.client.parse_headers(reader)
            if status not in (101, 200):
                _raise_for(status, reader.read(int(head.get("Content-Length", 0))))
            connection.sock.settimeout(None)
            return Stream(connection.sock, reader, tty)
        except TimeoutError as error:
            connection.close()
            raise Late(f"Docker gave no answer to POST {path} within {self.timeout:g} s; see its log") from error
        except (OSError, http.client.HTTPException, ValueError, IndexError) as error:
            connection.close()
            raise DockerError(f"Docker does not answer on {self.path}: {error}; start it, or see its log") from error
        except DockerError:
            connection.close()
            raise


class Stream:
    """The standard streams of a command: read frames, write its input."""

    def __init__(self, sock: socket.socket, reader: io.BufferedReader, tty: bool) -> None:
        self.sock = sock
        self._reader = reader
        self._tty = tty

    def read(self) -> tuple[int, bytes] | None:
        """Return the next ``(1 for output or 2 for errors, bytes)``, or None at the end."""
        if self._tty:
            chunk = self._reader.read1(65536)
            return (1, chunk) if chunk else None
        header = self._exactly(8)
        if header is None:
            return None
        kind, length = struct.unpack(">BxxxL", header)
        payload = self._exactly(length)
        return None if payload is None else (kind, payload)

    def _exactly(self, count: int) -> bytes | None:
        data = self._reader.read(count)
        return data if data is not None and len(data) == count else None

    def write(self, data: bytes) -> None:
        """Send *data* to the command's standard input."""
        self.sock.sendall(data)

    def close_write(self) -> None:
        """End the command's standard input."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """End the stream for whoever is reading it."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the stream; the command goes on."""
        with contextlib.suppress(OSError):
            self._reader.close()
        with contextlib.suppress(OSError):
            self.sock.close()


def _processes(container: str) -> list[int]:
    """Return the processes of the container with that id, as its cgroups have them."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        # One that ends meanwhile is none.
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
            if container in file.read():
                found.append(int(pid))
    return found


def _quote(name: str) -> str:
    return urllib.parse.quote(name, safe="/:@")


def _raise_for(status: int, text: bytes) -> None:
    if status < 400:
        return
    try:
        message = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        message = text.decode("utf-8", "replace") or os.strerror(0)
    raise DockerError(f"Docker: {message}", status)

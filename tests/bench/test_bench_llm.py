# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gateway costs a call: requests a second, time added, and events of paced streams, beside its own stack without it.

One run, the same upstream, processors pinned: what is measured (the gateway, or a peer) on one, the upstream, the clients and the
recorder on the other. Each figure is taken three times in turn, and the median is told; requests a second seven times, each beside
the peer's of the same turn, as the speed of a machine changes within seconds: with an upstream that answers with next to no work,
which shows most of the gateway, and with the simulated provider. Beside it, for information, stands LiteLLM's proxy, without a
database and so without budgets, installed into a folder of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

import pytest
import yaml
from bench import llm_parts
from services.llms import TOKEN, Llm, Simulator
from services.recorders import TOP, Recorder

LITELLM = "litellm[proxy]==1.108.7"
CACHE = TOP / ".cache" / "llm-bench"
ROUNDS = 3
TURNS = 7
CALLS = 9000
STREAMS = 200
LITELLM_CALLS = 320
MASTER_KEY = f"sk-{TOKEN}-{TOKEN}-{TOKEN}"
TARGETS = {"ratio_per_s_at_32": 0.5, "simulated_ratio_per_s_at_32": 0.5, "p50_added_ms_at_1": 1.5, "event_added_ms_at_p99": 5, "times_litellm_per_s": 25}


def part(*arguments: str, processor: int) -> subprocess.Popen[bytes]:
    """Start a part of the bench on one processor."""
    command = ["taskset", "-c", str(processor), sys.executable, llm_parts.__file__, *arguments]
    environment = {**os.environ, "PYTHONPATH": f"{TOP / '.collections'}:{TOP / 'src'}"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)


def asked(path: str, connections: int, calls: int, word: str, token: str = TOKEN) -> dict[str, float]:
    """Return what the load saw."""
    made = part("load", path, token, str(connections), str(calls), word, processor=1)
    told, _nothing = made.communicate(timeout=300)
    assert made.returncode == 0
    return t.cast("dict[str, float]", json.loads(told))


def processor_time(*processes: subprocess.Popen[bytes] | None) -> float:
    """Return the seconds of processor time that *processes* have had."""
    total = 0
    for process in processes:
        assert process is not None
        fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody has now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def litellm() -> Path:
    """Return the command of LiteLLM's proxy."""
    venv = CACHE / "litellm"
    mark = venv / LITELLM
    if not mark.exists():
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "-q", LITELLM], check=True)
        mark.touch()
    return venv / "bin" / "litellm"


@contextlib.contextmanager
def proxying(folder: Path) -> t.Iterator[int]:
    """Run LiteLLM's proxy as one process on the first processor, with an upstream of its own; yield its port."""
    to, port = free_port(), free_port()
    parameters = {"model": "openai/m", "api_base": f"http://127.0.0.1:{to}/v1", "api_key": "none"}
    config = folder / "litellm.yaml"
    config.write_text(json.dumps({"model_list": [{"model_name": "m", "litellm_params": parameters}]}), encoding="utf-8")
    command = ["taskset", "-c", "0", str(litellm()), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    # What it would fetch from elsewhere it has with it.
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MASTER_KEY": MASTER_KEY}
    upstream = part("upstream", str(to), processor=1)
    with (folder / "litellm.log").open("wb") as words:
        process = subprocess.Popen(command, env=environment, stdout=words, stderr=words)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < deadline, (folder / "litellm.log").read_text(encoding="utf-8")[-2000:]
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.2)
        yield port
    finally:
        for one in (process, upstream):
            one.kill()
            one.wait()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors")
def test_llm() -> None:
    seen: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        seen.setdefault(name, []).append(value)

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-llm-", dir="/var/tmp")))
        direct, peer = str(folder / "upstream.sock"), str(folder / "relay.sock")
        parts = [part("upstream", direct, processor=1), part("relay", peer, direct, processor=0)]
        # With the rules that a host has, which each event is looked through for.
        rules = yaml.safe_load((TOP / "configs" / "logging.yml").read_text(encoding="utf-8"))
        ration = {"events": 10**7, "bytes": 10**10, "burst": 10}
        recorder = Recorder(folder / "recorder", senders=["host", "llm"], redaction=rules, ration=ration)
        simulator = Simulator(folder / "simulator")
        provider, simulated_peer = simulator.settings["socket"], str(folder / "simulated-relay.sock")
        parts.append(part("relay", simulated_peer, provider, processor=0))
        llm, simulated = (
            Llm(folder / name, {"url": "http://upstream", "provider": "simulated", "socket": to}, recorder.path("llm"))
            for name, to in (("llm", direct), ("simulated-llm", provider))
        )
        try:
            for service, processor in ((recorder, 1), (simulator, 1), (llm, 0), (simulated, 0)):
                service.start()
                assert service.process is not None
                for task in os.listdir(f"/proc/{service.process.pid}/task"):
                    os.sched_setaffinity(int(task), {processor})
            while not all(os.path.exists(path) for path in (direct, peer, simulated_peer)):
                time.sleep(0.05)
            ways = {"direct": direct, "peer": peer, "gateway": llm.socket()}
            for _turn in range(ROUNDS):
                for name, path in ways.items():
                    asked(path, 8, 64, "whole")
                    note(f"{name}_p50_ms_at_1", asked(path, 1, 300, "whole")["p50_ms"])
                    before = processor_time(llm.process), processor_time(recorder.process), processor_time(parts[1])
                    streamed = asked(path, STREAMS, STREAMS, "streams")
                    after = processor_time(llm.process), processor_time(recorder.process), processor_time(parts[1])
                    note(f"{name}_event_p99_ms", streamed["late_p99_ms"])
                    if name != "direct":
                        of = 0 if name == "gateway" else 2
                        note(f"{name}_cpu_us_per_event", (after[of] - before[of]) / streamed["events"] * 1e6)
            pairs = {"": (peer, llm.socket()), "simulated_": (simulated_peer, simulated.socket())}
            for _turn in range(TURNS):
                note("direct_per_s_at_32", asked(direct, 32, CALLS, "whole")["per_s"])
                for kind, pair in pairs.items():
                    of_peer, of_gateway = (asked(path, 32, CALLS, "whole")["per_s"] for path in pair)
                    note(f"{kind}peer_per_s_at_32", of_peer)
                    note(f"{kind}gateway_per_s_at_32", of_gateway)
                    note(f"{kind}ratio_per_s_at_32", of_gateway / of_peer)
            with proxying(folder) as port:
                asked(str(port), 8, 64, "whole", MASTER_KEY)
                note("litellm_p50_ms_at_1", asked(str(port), 1, 50, "whole", MASTER_KEY)["p50_ms"])
                note("litellm_per_s_at_32", asked(str(port), 32, LITELLM_CALLS, "whole", MASTER_KEY)["per_s"])
        finally:
            for service in (llm, simulated, simulator, recorder):
                if service.process is not None:
                    service.stop()
            for process in parts:
                process.kill()
                process.wait()
    figures = {name: round(statistics.median(values), 2) for name, values in seen.items()}
    ratios = {
        "p50_added_ms_at_1": round(figures["gateway_p50_ms_at_1"] - figures["peer_p50_ms_at_1"], 2),
        "times_litellm_per_s": round(figures["gateway_per_s_at_32"] / figures["litellm_per_s_at_32"], 1),
        "event_added_ms_at_p99": round(figures["gateway_event_p99_ms"] - figures["direct_event_p99_ms"], 2),
    }
    sys.stdout.write("\nllm: " + json.dumps({**figures, **ratios, "targets": TARGETS}) + "\n")
    assert all(figures.values())

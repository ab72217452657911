# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Agents at work through the gateway: real clients, a simulated provider, and spend that is its account to the micro-dollar.

In a machine of its own, on what `make site` has made of it without a key. The tests are steps of one story, in this order.
"""

from __future__ import annotations

import json
import pathlib
import time
import typing as t

import bare
import machine
import pytest
import yaml

from dockersandbox.simulator import plan

HOME, DATA = "/opt/DockerSandboxApp", "/var/lib/dockersandbox"
SECONDS = 60
AGENTS: dict[str, list[str]] = {
    "claude-code": ["claude", "-p", "Write a note."],
    "codex": ["codex", "exec", "--skip-git-repo-check", "Write a note."],
}
CONFIG = pathlib.Path(__file__).resolve().parents[2] / "configs" / "cost.yml"

# Run inside: the simulated provider's own account.
ACCOUNT = """
import http.client, socket, sys
class Door(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/run/dockersandbox/simulator/llm/simulator.sock")
door = Door("simulator")
door.request("GET", "/account")
print(door.getresponse().read().decode())
"""

# Run in a sandbox: so many calls at once by 127.0.0.1:4000; prints how many fared how.
BURST = """
import collections, concurrent.futures, http.client, json, os
def call(number):
    door = http.client.HTTPConnection("127.0.0.1", 4000, timeout=60)
    body = {"model": "simulated-small", "max_tokens": 64, "messages": [{"role": "user", "content": f"call {number}"}]}
    headers = {"x-api-key": os.environ["ANTHROPIC_AUTH_TOKEN"], "content-type": "application/json"}
    door.request("POST", "/v1/messages", json.dumps(body), headers)
    answer = door.getresponse()
    answer.read()
    return answer.headers.get("x-guardrails-reason") or answer.status
with concurrent.futures.ThreadPoolExecutor(24) as pool:
    print(json.dumps(collections.Counter(map(str, pool.map(call, range(48))))))
"""

# Run inside: a provider at an address of the machine, with an account of its own, and beside it what nobody was let to.
PROVIDER = """
import http.server, json, threading
class Provider(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        known = self.headers["authorization"] == "Bearer %s"
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "one"}}
        answer = json.dumps({"id": "1", "object": "chat.completion", "model": "own", "choices": [choice], "usage": usage}).encode()
        self.send_response(200 if known else 401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
for port in (8000, 8001):
    threading.Thread(target=http.server.ThreadingHTTPServer(("0.0.0.0", port), Provider).serve_forever).start()
"""
KEY = "sk-0123456789abcdefghijklmnop"
ASK = """
import http.client, json, os
door = http.client.HTTPConnection("127.0.0.1", 4000, timeout=60)
body = {"model": "own", "max_tokens": 64, "messages": [{"role": "user", "content": "one"}]}
headers = {"authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "content-type": "application/json"}
door.request("POST", "/v1/chat/completions", json.dumps(body), headers)
answer = door.getresponse()
print(answer.status, answer.read().decode())
"""
# Run in the gateway's container: which of the addresses can be connected to.
REACH = """
import socket, sys
for address in sys.argv[1:]:
    host, colon, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 2).close()
        print(port)
    except OSError:
        pass
"""


@pytest.fixture(scope="module")
def host(bare_machine: bare.Bare) -> bare.Bare:
    """A converged machine with a sandbox for each agent."""
    bare_machine.make_once()
    for name in AGENTS:
        assert bare_machine.run(f"mkdir -p {DATA}/originals/{name}; echo one > {DATA}/originals/{name}/file", folder="/").code == 0
    done = site(bare_machine)
    assert done.code == 0, done.text
    assert "No key is configured for anthropic and openai" in done.text
    return bare_machine


def site(host: bare.Bare, arguments: str = "", **variables: t.Any) -> bare.Done:
    """Run ``make site`` with the sandboxes of this story and extra *variables*."""
    boxes = [{"name": name, "originals": f"{DATA}/originals/{name}", "preset": name, "working_set": "300m"} for name in AGENTS]
    declared = host.declare(*boxes)
    machine.run("docker", "exec", "-i", host.name, "tee", "/root/variables.json", text=json.dumps(variables))
    return host.site(f"{declared} -e @/root/variables.json {arguments}")


def account(host: bare.Bare) -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", json.loads(machine.run("docker", "exec", "-i", host.name, "python3", "-", text=ACCOUNT)))


def spend(host: bare.Bare) -> dict[str, t.Any]:
    """Return what was spent once nothing is held."""
    deadline = time.monotonic() + SECONDS
    while True:
        known = json.loads(host.sandbox("service llm spend").text)["spend"]
        if not known["total"]["total"]["held"] or time.monotonic() > deadline:
            return t.cast("dict[str, t.Any]", known)
        time.sleep(0.2)


def work(host: bare.Bare, name: str, argv: list[str], script: str = "") -> dict[str, t.Any]:
    """Run *argv* in a sandbox with *script* as its input; return what ``bin/sandbox run --json`` told."""
    command = ["docker", "exec", "-i", host.name, f"{HOME}/bin/sandbox", "run", "--json", name, "--", *argv]
    return t.cast("dict[str, t.Any]", json.loads(machine.run(*command, text=script)))


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_works_and_its_spend_is_the_providers_account(host: bare.Bare, name: str) -> None:
    before, asked = spend(host)["sandbox"].get(name, {"spent": 0, "calls": 0}), account(host)
    done = work(host, name, AGENTS[name])
    assert (done["exit_code"], done["originals"]) == (0, [])
    assert done["changes"] == {"added": 2, "changed": 0, "removed": 0}
    for file in plan.FILES:
        assert host.run(f"cat {done['bundle']}/files/{file}", folder="/").text == plan.NOTE
    after, charged = spend(host), account(host)
    spent = charged["micro_dollars"] - asked["micro_dollars"]
    assert after["sandbox"][name]["spent"] - before["spent"] == after["run"][done["run"]]["spent"] == spent > 0
    assert after["run"][done["run"]]["calls"] == len(charged["calls"]) - len(asked["calls"]) >= 3
    print(f"{name}: {after['run'][done['run']]['calls']} calls, {spent} micro-dollars")


def test_a_second_play_changes_nothing(host: bare.Bare) -> None:
    done = site(host)
    assert done.code == 0 and done.changed == 0, done.text


def test_no_burst_gets_past_the_budget_of_a_run(host: bare.Bare) -> None:
    budgets = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["cost_budgets"]
    # Ten calls or so: 64 tokens cost 960 micro-dollars, and what goes in some 100.
    done = site(host, "--tags cost", cost_budgets=[{**budgets[0], "limit": "0.01"}, *budgets[1:]])
    assert done.code == 0, done.text
    run = work(host, "claude-code", ["sh", "-c", "python3 - > burst.json"], BURST)["run"]
    spent = spend(host)["run"][run]
    assert 0 < spent["spent"] <= 10_000
    of_run = [entry for entry in json.loads(host.sandbox("service llm budgets").text)["standing"] if entry["subject"] == f"run:{run}"]
    assert [(entry["limit"], entry["spent"], entry["held"]) for entry in of_run] == [(10_000, spent["spent"], 0)]
    told = host.run(f"cat {HOME}/exports/claude-code/{run}/files/burst.json", folder="/").text
    fared = json.loads(told)
    assert fared["200"] == spent["calls"] and sum(fared.values()) == 48 and set(fared) <= {"200", "spent", "held", "streams"}


def test_a_stop_reaches_whoever_calls_and_is_taken_back(host: bare.Bare) -> None:
    assert host.sandbox("service llm stop subject=sandbox:codex --reason rehearsal").code == 0
    run = work(host, "codex", ["sh", "-c", "python3 - > burst.json"], BURST)["run"]
    assert json.loads(host.run(f"cat {HOME}/exports/codex/{run}/files/burst.json", folder="/").text) == {"stopped": 48}
    assert host.sandbox("service llm resume subject=sandbox:codex --reason over").code == 0
    stops = [json.loads(line) for line in host.sandbox("log --json --action llm.stop_calls").text.splitlines()]
    assert stops[-1]["reason"] == "rehearsal"


def test_a_play_stops_when_a_budget_is_over(host: bare.Bare) -> None:
    play = [{"hosts": "all", "gather_facts": False, "tasks": [{"dockersandbox.guardrails.budget_check": {"names": ["tiny"]}}]}]
    machine.run("docker", "exec", "-i", host.name, "tee", "/root/check.yml", text=json.dumps(play))
    budgets = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["cost_budgets"]
    for limit, code in (("0.000001", 2), ("1000", 0)):
        tiny = {"name": "tiny", "scope": "total", "limit": limit, "window": "month", "mode": "soft"}
        assert site(host, "--tags cost", cost_budgets=[*budgets, tiny]).code == 0
        for arguments in ("", "--check"):
            done = host.run(f".venv/bin/ansible-playbook {arguments} /root/check.yml")
            assert done.code == code, done.text
            assert ("budget tiny of total" in done.text) is bool(code)


def test_spend_is_a_table_and_a_chart(host: bare.Bare) -> None:
    done = host.run("make spend ARGS='-e spend_folder=/root'")
    assert done.code == 0, done.text
    assert "no real money" in done.text and "claude-code" in done.text
    assert host.run("head -c 8 /root/spend-*.png | od -An -c", folder="/").text.split()[1:4] == ["P", "N", "G"]


def reached(host: bare.Bare, *addresses: str) -> list[str]:
    """Return the ports of *addresses* that the gateway's container can connect to."""
    command = ["docker", "exec", "-i", host.name, "docker", "exec", "-i", "guardrails-llm", "/opt/venv/bin/python", "-", *addresses]
    return machine.run(*command, text=REACH).split()


def test_a_provider_of_one_s_own_is_paid_by_its_usage_and_nothing_else_is_reached(host: bare.Bare) -> None:
    machine.run("docker", "exec", "-i", host.name, "tee", "/root/provider.py", text=PROVIDER % KEY)
    machine.run("docker", "exec", "-d", host.name, "python3", "/root/provider.py")
    address = host.run("hostname -i", folder="/").text.split()[0]
    upstreams = {"anthropic": {"url": "https://api.anthropic.com", "provider": "anthropic"}, "openai": {"url": f"http://{address}:8000", "provider": "own"}}
    prices = [{"provider": "own", "model": "own", "input_mtok": 2, "output_mtok": 3}]
    done = site(host, "--tags cost", cost_upstreams=upstreams, cost_prices=prices, cost_openai_key=KEY)
    assert done.code == 0, done.text
    assert KEY not in done.text
    run = work(host, "codex", ["sh", "-c", "python3 - > answer"], ASK)["run"]
    assert host.run(f"cat {HOME}/exports/codex/{run}/files/answer", folder="/").text.startswith("200 ")
    assert spend(host)["run"][run] == {"calls": 1, "spent": 230, "held": 0}
    assert reached(host, f"{address}:8000", f"{address}:8001", "169.254.169.254:80") == ["8000"]
    assert KEY not in host.run(f"cat {HOME}/observability/claude-sandbox/logs/ct.jsonl", folder="/").text


def test_after_a_restart_of_the_machine_nothing_is_forgotten(host: bare.Bare) -> None:
    before = spend(host)
    machine.reboot(host.name)
    assert host.run(f"{HOME}/bin/dockerd-supervised start", folder="/").code == 0
    deadline = time.monotonic() + SECONDS
    while host.run(f"{HOME}/bin/sandbox status >/dev/null", folder="/").code != 0:
        assert time.monotonic() < deadline, host.run("tail -n 30 /var/log/dockerd-supervised.log", folder="/").text
        time.sleep(0.5)
    assert spend(host) == before
    # The wall around it is there again, and behind it nobody listens now.
    assert host.run("nft list table inet dockersandbox_llm", folder="/").code == 0
    assert work(host, "claude-code", AGENTS["claude-code"])["exit_code"] == 0
    assert spend(host)["total"]["total"]["spent"] > before["total"]["total"]["spent"]


def test_a_teardown_and_the_next_play_keep_the_ledger(host: bare.Bare) -> None:
    before = spend(host)["total"]["total"]["spent"]
    assert host.run(".venv/bin/ansible-playbook playbooks/teardown.yml").code == 0
    assert host.run("ls /run/dockersandbox/llm", folder="/").code != 0
    simulated = {"provider": "openai", "url": "https://api.openai.com", "simulated": True}
    done = site(host, cost_upstreams={"anthropic": {"provider": "anthropic", "url": "https://api.anthropic.com"}, "openai": simulated})
    assert done.code == 0, done.text
    assert spend(host)["total"]["total"]["spent"] >= before
    # With the last key, the way out is gone.
    assert host.run(f"ls {HOME}/.state/keys/llm", folder="/").text == ""
    assert host.run("docker network inspect guardrails-llm || nft list table inet dockersandbox_llm", folder="/").code != 0

# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""P11: the gateway runs behind its walls, each sandbox is heard on its own socket alone, and what it calls is paid from budgets."""

from __future__ import annotations

import json
import typing as t

Host = t.Any
HOME = "/opt/DockerSandboxApp"
GATEWAY = "guardrails-llm"
SOCKETS = "/run/dockersandbox/llm"
BODY = json.dumps({"model": "simulated-small", "max_tokens": 16, "messages": [{"role": "user", "content": "molecule"}]})

# Run inside: asks on the sandbox's socket; prints the status, the reason and the body.
ASK = """
import http.client, json, os, socket, sys
class Door(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/run/guardrails/llm/llm.sock")
door = Door("sandbox")
token = os.environ["ANTHROPIC_AUTH_TOKEN"] if sys.argv[1] == "own" else sys.argv[1]
door.request("POST", "/v1/messages", sys.argv[2], {"x-api-key": token})
answer = door.getresponse()
print(json.dumps([answer.status, answer.headers.get("x-guardrails-reason"), answer.read().decode()]))
"""


def inspected(host: Host, container: str) -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", json.loads(host.check_output(f"docker inspect {container}"))[0])


def command(host: Host, *words: str) -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", json.loads(host.check_output(f"{HOME}/bin/sandbox service llm {' '.join(words)}")))


def ask(host: Host, token: str) -> list[t.Any]:
    done = host.run(f"{HOME}/bin/sandbox run default -- python3 -c %s %s %s", ASK, token, BODY)
    assert done.rc == 0, done.stderr
    return t.cast("list[t.Any]", json.loads(done.stdout))


def test_they_run_behind_their_walls(host: Host) -> None:
    for container in (GATEWAY, "guardrails-simulator"):
        found = inspected(host, container)
        assert found["State"]["Running"]
        config = found["HostConfig"]
        # Without a key for a real provider, it has no way out.
        assert (config["NetworkMode"], config["ReadonlyRootfs"], config["CapDrop"]) == ("none", True, ["ALL"])
        assert config["SecurityOpt"][0] == "no-new-privileges"
        assert found["Config"]["User"] == f"{host.user(container).uid}:{host.user(container).gid}"


def test_nobody_but_root_and_the_gateway_reads_keys_and_tokens(host: Host) -> None:
    tokens, keys = host.file(f"{HOME}/.state/keys/llm-tokens.json"), host.file(f"{HOME}/.state/keys/llm")
    assert (tokens.user, tokens.mode) == ("root", 0o600)
    assert (keys.user, keys.group, keys.mode) == ("root", GATEWAY, 0o750)
    folder = host.file(SOCKETS)
    assert (folder.user, folder.mode) == (GATEWAY, 0o700)


def test_a_sandbox_sees_its_own_socket_alone(host: Host) -> None:
    seen = host.check_output("docker exec sandbox-default ls /run/guardrails/llm").split()
    assert seen == ["llm.sock"]


def test_a_call_is_answered_counted_to_its_run_and_charged(host: Host) -> None:
    before = command(host, "spend")["spend"]
    status, _reason, body = ask(host, "own")
    assert status == 200 and "simulated" in body
    after = command(host, "spend")["spend"]
    assert after["sandbox"]["default"]["spent"] > before["sandbox"].get("default", {"spent": 0})["spent"]
    assert len(set(after["run"]) - set(before["run"])) == 1


def test_another_token_is_worth_nothing(host: Host) -> None:
    assert ask(host, "sandbox-" + "0" * 48)[:2] == [401, "token"]


def test_the_token_is_not_on_record(host: Host) -> None:
    token = json.loads(host.file(f"{HOME}/.state/keys/llm-tokens.json").content_string)["default"]
    assert host.run(f"{HOME}/bin/sandbox run default -- printf %%s %s", token).rc == 0
    assert token not in host.file(f"{HOME}/observability/claude-sandbox/logs/ct.jsonl").content_string


def test_figures_are_where_prometheus_looks(host: Host) -> None:
    text = host.check_output(f"cat {HOME}/observability/metrics/llm.prom")
    assert "gen_ai_client_token_usage_bucket" in text and "dockersandbox_llm_budget_limit_micro_dollars" in text


def test_a_run_does_not_begin_without_the_gateway(host: Host) -> None:
    host.check_output(f"docker pause {GATEWAY}")
    try:
        done = host.run(f"{HOME}/bin/sandbox run default -- true")
    finally:
        host.check_output(f"docker unpause {GATEWAY}")
    assert done.rc == 125 and "service llm does not answer" in done.stderr


def test_a_killed_gateway_is_back_and_has_forgotten_nothing(host: Host) -> None:
    before = command(host, "spend")["spend"]["total"]["total"]
    pid = inspected(host, GATEWAY)["State"]["Pid"]
    host.check_output(f"kill -9 {pid}")
    done = host.run(f"{HOME}/bin/sandbox run default -- true")
    assert done.rc == 0, done.stderr
    assert command(host, "spend")["spend"]["total"]["total"]["spent"] >= before["spent"] > 0

# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's tools say to a gateway that runs: budgets are declared, checked and told of, runs are counted, and the proof proves."""

from __future__ import annotations

import socket
import threading
import typing as t
from pathlib import Path

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import llm, llm_access, llm_proof, lock, services, stack
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places
from services.llms import TOKEN, Stand, message, standing
from unit import modules

DAY = {"name": "day", "scope": "total", "limit": 1}
RUN = {"name": "each-run", "scope": "run", "limit": "0.01"}
# 1,350 micro-dollars and more by the simulated provider's prices.
DEAR = "[simulate output=90]"


class Host(t.NamedTuple):
    """The places of a host, and what runs on it."""

    at: Places
    stand: Stand


@pytest.fixture
def host(tmp_path: Path) -> t.Iterator[Host]:
    """A gateway and its simulated provider where a host has them, and one sandbox with its token."""
    at = Places(str(tmp_path / "home"), str(tmp_path / "data"), str(tmp_path / "run"))
    tokens = llm_access.tokens_file(at, {"one": TOKEN})
    tokens.path.parent.mkdir(parents=True)
    lock.write_locked(tokens.path, tokens.content or b"", tokens.mode)
    with standing(tmp_path / "stand", budgets=None) as stand:
        Path(at.run).mkdir()
        Path(services.run_folder(at, "llm")).symlink_to(stand.llm.folder / "run")
        provider = Path(llm_proof.simulator_socket(at))
        provider.parent.mkdir(parents=True)
        provider.symlink_to(str(stand.simulator.settings["socket"]))
        yield Host(at, stand)


def budget(host: Host, *wanted: dict[str, t.Any], check: bool = False, exclusive: bool = True) -> dict[str, t.Any]:
    """Return what the module budget answers."""
    return modules.run("budget", check=check, run=host.at.run, budgets=list(wanted), exclusive=exclusive, reason="a test")


def names(host: Host) -> list[str]:
    return [one["name"] for one in host.stand.llm.command("budgets")["budgets"]]


def test_budgets_are_declared_once(host: Host) -> None:
    assert budget(host, DAY, RUN, check=True)["changed"] and names(host) == []
    done = budget(host, DAY, RUN)
    assert done["actions"] == ["Declared budget day: it was not there", "Declared budget each-run: it was not there"]
    assert names(host) == ["day", "each-run"] and done["diff"]["before"] == "" != done["diff"]["after"]
    again = budget(host, DAY, RUN)
    assert not again["changed"] and again["diff"]["before"] == again["diff"]["after"]
    assert budget(host, {**DAY, "limit": 2}, exclusive=False)["actions"] == ["Declared budget day anew: limit was 1.00, not 2.00"]
    assert names(host) == ["day", "each-run"]
    assert budget(host, DAY)["actions"][-1] == "Removed budget each-run: it is not declared any more"
    assert names(host) == ["day"]
    # What changed nothing is not on record.
    assert [event["reason"] for event in host.stand.events("llm.budgets")] == ["a test"] * 3


def test_a_play_is_stopped_when_spend_is_over_and_told_of_it(host: Host) -> None:
    budget(host, {**DAY, "limit": 100, "window": "ever"}, {**DAY, "name": "soft", "limit": "0.001", "mode": "soft", "window": "ever"})
    for check in (False, True):
        assert not modules.run("budget_check", check=check, run=host.at.run)["failed"]
    assert host.stand.llm.ask("/v1/messages", message(DEAR)).status == 200
    spent = host.stand.llm.settled()["spent"]
    assert spent == host.stand.simulator.account()["micro_dollars"] > 1000
    for check in (False, True):
        done = modules.run("budget_check", check=check, run=host.at.run)
        assert done["failed"] and done["msg"].startswith("budget soft of total: 0.001") and "\n" not in done["msg"]
    assert not modules.run("budget_check", run=host.at.run, names=["day"])["failed"]
    assert "there is no budget none; there is day, soft" in modules.run("budget_check", run=host.at.run, names=["none"])["msg"]
    told = modules.run("budget_info", run=host.at.run, days=1)
    assert (told["changed"], told["simulated"]) == (False, ["anthropic", "openai"])
    assert told["spend"]["sandbox"]["one"]["spent"] == spent and "no real money" in told["table"]


def test_a_run_is_held_to_its_budget_and_the_next_has_its_own(host: Host) -> None:
    budget(host, RUN)
    reaches: stack.Description = {"mounts": [{"bind": "/x", "target": llm.FOLDER}]}

    def ask() -> tuple[int, str]:
        got = host.stand.llm.ask("/v1/messages", message("[simulate output=300]", max_tokens=300))
        host.stand.llm.settled()
        return got.status, got.reason

    # Outside of runs there is no budget that holds.
    assert ask() == (402, "no_budget")
    for run in ("r-1", "r-2"):
        with llm.counted(host.at, "one", reaches, run):
            answers = [ask() for _time in range(4)]
        assert answers[0] == (200, "") and answers[-1] == (402, "spent")
    assert set(host.stand.llm.command("spend")["spend"]["run"]) == {"r-1", "r-2"}
    assert host.stand.llm.command("status")["sandboxes"]["one"]["run"] == ""


# -- the proof


def test_the_proof_is_a_call_that_is_charged(host: Host) -> None:
    budget(host, DAY)
    proof = llm_proof.prove(host.at, ["one"])
    assert (proof.outcome, proof.sandboxes, proof.simulated) == ("charged", 1, ["anthropic", "openai"])
    assert proof.micro_dollars == host.stand.simulator.account()["micro_dollars"] > 0
    done = modules.run("cost_verify", home=host.at.home, data=host.at.data, run=host.at.run, sandboxes=["one"])
    assert not done["changed"] and done["outcome"] == "charged"
    assert {event["reason"] for event in host.stand.events("llm.call") if event["decision"] == "deny"} == {"token", "path"}


def test_a_budget_that_is_spent_is_no_failure(host: Host) -> None:
    budget(host, {**DAY, "limit": 0})
    assert llm_proof.prove(host.at, ["one"])[2:] == ("refused", 0, "spent")


@pytest.mark.parametrize(("tokens", "said"), [({"two": TOKEN}, "sandbox one: has no token"), ({"one": "other", "two": TOKEN}, "is answered with 200, not 401")])
def test_tokens_that_are_not_the_gateways_are_found(host: Host, tokens: dict[str, str], said: str) -> None:
    wanted = llm_access.tokens_file(host.at, tokens)
    lock.write_locked(wanted.path, wanted.content or b"", wanted.mode)
    with pytest.raises(llm_proof.ProofError, match=said):
        llm_proof.prove(host.at, ["one"])


def test_a_gateway_that_hangs_up_is_told_of(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()

        def hang_up() -> None:
            server.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(llm_proof.ProofError, match="the gateway does not answer"):
            llm_proof.ask(str(tmp_path / "s"), "GET", "/v1/models", "none")
        thread.join()

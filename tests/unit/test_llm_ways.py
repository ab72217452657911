# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the gateway of LLM calls may go: what is refused before anything changes, and what its wall opens."""

from __future__ import annotations

import pathlib
import typing as t

import modules
import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import llm_ways, wall

NAMED = "https://api.example.org"
RESOLVERS = ["9.9.9.9"]


def document(url: str, **more: t.Any) -> dict[str, t.Any]:
    simulated = {"url": "http://simulator", "socket": "/run/guardrails/simulator/simulator.sock"}
    return {"anthropic": {"url": url, **more}, "openai": simulated, "resolvers": RESOLVERS}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://a.example", "is not the http or https URL of a server"),
        ("https://a.example?key=1", "is not the http or https URL of a server"),
        ("https://me@a.example", "is not the http or https URL of a server"),
        ("https://a.example:0", "has no port from 1 to 65535"),
        ("https://exa mple", "has a blank or a control character"),
        ("http://127.0.0.1:8000", "is the gateway's own loopback: let the provider listen at another address of this host"),
        ("http://localhost:8000", "is the gateway's own loopback"),
        ("http://[::1]:8000", "is the gateway's own loopback"),
        ("http://[2600::1]:8000", "is an IPv6 address: the gateway's network has IPv4 alone"),
        ("http://169.254.169.254", "is a metadata address"),
        ("http://0.0.0.0:80", "is a unspecified address"),
    ],
)
def test_what_cannot_be_reached_is_refused(tmp_path: pathlib.Path, url: str, said: str) -> None:
    done = modules.run("cost_preflight", home=str(tmp_path), upstreams={"anthropic": {"url": NAMED}, "openai": {"url": url}})
    assert done["failed"] and done["msg"].startswith(f"cost_upstreams.openai.url: {url!r} {said}") and "\n" not in done["msg"]


@pytest.mark.parametrize(
    ("real", "resolvers", "refused"),
    [([], [], False), (["openai"], [], False), (["anthropic"], [], True), (["anthropic"], RESOLVERS, False)],
)
def test_a_name_needs_somebody_to_ask(real: list[str], resolvers: list[str], refused: bool) -> None:
    upstreams = {"anthropic": {"url": NAMED}, "openai": {"url": "http://10.1.2.3:8000/base"}}
    try:
        llm_ways.check(upstreams, real, resolvers)
    except llm_ways.WayError as error:
        assert refused and "has a name, and this machine has no resolver" in str(error)
    else:
        assert not refused


def test_a_key_that_the_host_has_makes_its_provider_real(tmp_path: pathlib.Path) -> None:
    key = tmp_path / ".state" / "keys" / "llm" / "openai.key"
    key.parent.mkdir(parents=True)
    key.write_text("sk-x\n", encoding="ascii")
    upstreams = {"anthropic": {"url": NAMED}, "openai": {"url": NAMED}}
    done = modules.run("cost_preflight", home=str(tmp_path), upstreams=upstreams, resolvers=RESOLVERS)
    assert (done["changed"], done["resolvers"]) == (False, RESOLVERS)


@pytest.mark.parametrize(
    ("given", "own", "public", "private", "asked"),
    [
        (document(NAMED), set(), {443}, set(), True),
        (document("http://api.example.org:8080/base"), set(), {8080}, set(), True),
        (document(NAMED, allow_private=True), set(), {443}, {443}, True),
        # What is written as an address is opened, and that alone; nobody is asked for anything.
        (document("http://10.1.2.3:8000"), {("10.1.2.3", 8000)}, set(), set(), False),
        (document("http://192.0.9.1"), {("192.0.9.1", 80)}, set(), set(), False),
    ],
)
def test_openings(given: dict[str, t.Any], own: set[tuple[str, int]], public: set[int], private: set[int], asked: bool) -> None:
    found = llm_ways.openings(given)
    assert {(str(address), port) for address, port in found.own} == own
    assert (set(found.public), set(found.private), set(found.exact), bool(found.resolvers)) == (public, private, set(), asked)


def test_an_address_of_this_host_is_opened_before_those_are_closed() -> None:
    rules = wall.render("llm", llm_ways.openings(document("http://10.1.2.3:8000"))).splitlines()
    opened, closed = (next(number for number, rule in enumerate(rules) if word in rule) for word in ("10.1.2.3 . 8000", "fib daddr type"))
    assert opened < closed

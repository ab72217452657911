# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Allowlists: what is decided over a request, and the one line that says why a rule is not taken."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import allowlist, hosts
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.allowlist import Limits, Policy, Request, RulesError

SUFFIXES = (
    "// ===BEGIN ICANN DOMAINS===",
    "com",
    "org",
    "uk",
    "co.uk",
    "*.ck",
    "!www.ck",
    "公司.cn",
    "",
    "// ===BEGIN PRIVATE DOMAINS===",
    "github.io",
    "*.compute.amazonaws.com",
    "s3.amazonaws.com",
)


def _policy(*rules: dict[str, t.Any], **more: t.Any) -> Policy:
    return allowlist.parse({"groups": {"some": list(rules)}, "sandboxes": {"box": {"groups": ["some"], **more}}}, SUFFIXES)


def _problems(*rules: t.Any, **more: t.Any) -> list[str]:
    with pytest.raises(RulesError) as caught:
        _policy(*rules, **more)
    return caught.value.problems


def _request(url: str, method: str = "CONNECT") -> Request:
    """Return the request for ``host:port`` by CONNECT, or for an ``http://`` URL."""
    if method == "CONNECT":
        return Request(*hosts.authority(url), "https")
    authority, slash, path = url.removeprefix("http://").partition("/")
    return Request(*hosts.authority(authority, 80), "http", method, slash + path)


EXACT = {"host": "api.example.org"}
WILD = {"host": "*.example.org", "ports": [443, 8443]}
PLAIN = {"host": "mirror.example.org", "scheme": "http", "paths": ["/debian/", "/pool"], "methods": ["GET", "HEAD"]}
POST = {"host": "mirror.example.org", "scheme": "http", "paths": ["/repo.git/git-upload-pack"], "methods": ["POST"]}


@pytest.mark.parametrize(
    ("rule", "url", "due"),
    [
        (EXACT, "api.example.org:443", "allowed"),
        (EXACT, "API.example.org.:443", "allowed"),
        (EXACT, "api.example.org:22", "port 22 is not allowed: 443 is"),
        (EXACT, "example.org:443", "no rule of this sandbox names example.org"),
        (EXACT, "x.api.example.org:443", "no rule of this sandbox names x.api.example.org"),
        (EXACT, "api.example.org.evil.example:443", "no rule of this sandbox names api.example.org.evil.example"),
        (EXACT, "notapi.example.org:443", "no rule of this sandbox names notapi.example.org"),
        (EXACT, "192.0.2.1:443", "no rule of this sandbox names 192.0.2.1"),
        (EXACT, "[2606:4700:4700::1111]:443", "no rule of this sandbox names 2606:4700:4700::1111"),
        (WILD, "a.example.org:443", "allowed"),
        (WILD, "a.b.example.org:8443", "allowed"),
        (WILD, "a.example.org:80", "port 80 is not allowed: 443, 8443 is"),
        (WILD, "example.org:443", "no rule of this sandbox names example.org"),
        (WILD, "notexample.org:443", "no rule of this sandbox names notexample.org"),
        (WILD, "example.org.evil.example:443", "no rule of this sandbox names example.org.evil.example"),
        (PLAIN, "mirror.example.org:80", "mirror.example.org is allowed by http, not by https"),
        ({**EXACT, "host": "10.1.2.3", "allow_private": True}, "10.1.2.3:443", "allowed"),
        ({**EXACT, "host": "fd12::1", "allow_private": True}, "[fd12:0::1]:443", "allowed"),
    ],
)
def test_connect(rule: dict[str, t.Any], url: str, due: str) -> None:
    decision = _policy(rule).decide("box", _request(url))
    assert decision.reason == due
    assert (decision.rule is not None) == (due == "allowed")


@pytest.mark.parametrize(
    ("method", "url", "due"),
    [
        ("GET", "http://mirror.example.org/debian/dists/x", "allowed"),
        ("GET", "http://mirror.example.org/pool", "allowed"),
        ("GET", "http://mirror.example.org/pool/a?b=/../c", "allowed"),
        ("POST", "http://mirror.example.org/repo.git/git-upload-pack", "allowed"),
        ("GET", "http://mirror.example.org/poolside", "this path is not allowed"),
        ("GET", "http://mirror.example.org/debian", "this path is not allowed"),
        ("GET", "http://mirror.example.org/", "this path is not allowed"),
        ("GET", "http://mirror.example.org/x?/debian/", "this path is not allowed"),
        ("GET", "http://mirror.example.org/debian/../secret", "a path that servers read in more than one way"),
        ("GET", "http://mirror.example.org/debian/..", "a path that servers read in more than one way"),
        ("GET", "http://mirror.example.org/debian/./x", "a path that servers read in more than one way"),
        ("GET", "http://mirror.example.org/debian/%2e%2E/secret", "a path that servers read in more than one way"),
        ("GET", "http://mirror.example.org/debian/.%2e/secret", "a path that servers read in more than one way"),
        ("GET", "http://mirror.example.org/debian/..%2fsecret", "a path that servers read in more than one way"),
        ("GET", "http://mirror.example.org/debian/..%5csecret", "a path that servers read in more than one way"),
        ("GET", "http://mirror.example.org/debian/%252e%252e/secret", "a path that servers read in more than one way"),
        ("GET", "http://mirror.example.org/debian/..;/secret", "a path that servers read in more than one way"),
        ("GET", "http://mirror.example.org/debian/..\\secret", "a path that servers read in more than one way"),
        ("GET", "http://mirror.example.org/debian//secret", "a path that servers read in more than one way"),
        ("GET", "http://mirror.example.org/debian/a%00b", "a path that servers read in more than one way"),
        ("PUT", "http://mirror.example.org/debian/x", "method PUT is not allowed: GET, HEAD is"),
        ("POST", "http://mirror.example.org/debian/x", "method POST is not allowed: GET, HEAD is"),
        ("POST", "http://mirror.example.org/repo.git/git-receive-pack", "method POST is not allowed: GET, HEAD is"),
        ("get", "http://mirror.example.org/debian/x", "method get is not allowed"),
        ("GET", "http://mirror.example.org:8080/debian/x", "port 8080 is not allowed: 80 is"),
        ("GET", "http://api.example.org/", "api.example.org is allowed by https, not by http"),
    ],
)
def test_plain(method: str, url: str, due: str) -> None:
    decision = _policy(PLAIN, POST, EXACT).decide("box", _request(url, method))
    assert decision.reason.startswith(due)
    assert (decision.rule is not None) == (due == "allowed")


def test_all_paths() -> None:
    policy = _policy({"host": "mirror.example.org", "scheme": "http"})
    assert policy.decide("box", _request("http://mirror.example.org/a/../b", "GET")).rule


def test_nothing() -> None:
    policy = allowlist.parse({"groups": {"some": [EXACT]}, "sandboxes": {"none": {}, "empty": {"groups": [], "rules": []}}}, SUFFIXES)
    for sandbox in ("none", "empty", "unknown"):
        decision = policy.decide(sandbox, _request("api.example.org:443"))
        assert (decision.rule, decision.id) == (None, "default")


def test_of_one_sandbox_alone() -> None:
    document = {"groups": {}, "sandboxes": {"one": {"rules": [EXACT]}, "two": {"rules": [WILD]}}}
    policy = allowlist.parse(document, SUFFIXES)
    assert policy.decide("one", _request("api.example.org:443")).id == "one/api.example.org:443"
    assert policy.decide("two", _request("api.example.org:443")).id == "two/*.example.org:443,8443"


def test_the_closest_rule_counts() -> None:
    policy = _policy({"host": "*.example.org"}, {"host": "*.a.example.org"}, {"host": "b.a.example.org"})
    wanted = {"b.a": "b.a.example.org", "c.a": "*.a.example.org", "c": "*.example.org"}
    for name, pattern in wanted.items():
        assert policy.decide("box", _request(f"{name}.example.org:443")).id == f"some/{pattern}:443"


def test_ids() -> None:
    (of_box,) = _policy(PLAIN, POST, EXACT).sandboxes.values()
    assert sorted(rule.id for rule in of_box.rules) == ["some/api.example.org:443", "some/mirror.example.org:80", "some/mirror.example.org:80#2"]


@pytest.mark.parametrize(
    ("content", "due"),
    [
        ({}, allowlist.SANDBOX_LIMITS),
        ({"bytes": "1g", "connections": 5, "rate": 60, "idle": 30}, Limits(1 << 30, 5, 60, 30)),
    ],
)
def test_limits(content: dict[str, t.Any], due: Limits) -> None:
    assert _policy(EXACT, limits=content).sandboxes["box"].limits == due


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("api.example.org", "some, rule 1: a mapping with a host is due"),
        ({}, "a mapping with a host is due"),
        ({"host": None}, "host: None is not a text"),
        ({"host": 12}, "host: 12 is not a text"),
        ({"host": ""}, "is empty"),
        ({"host": "api.example.org\nevil.example"}, "rule 1 (api.example.org\\nevil.example): has a blank or a control character"),
        ({"host": "api.example.org\r"}, "has a blank or a control character"),
        ({"host": "*"}, "* stands only before a dot"),
        ({"host": "*."}, "is empty"),
        ({"host": "*.*.example.org"}, "* stands only before a dot"),
        ({"host": "a*.example.org"}, "* stands only before a dot"),
        ({"host": "**.example.org"}, "* stands only before a dot"),
        ({"host": "com"}, "is a bare top-level name"),
        ({"host": "*.com"}, "is a bare top-level name"),
        ({"host": "localhost"}, "is a bare top-level name"),
        ({"host": "*.co.uk"}, "is a wildcard over co.uk"),
        ({"host": "*.foo.ck"}, "is a wildcard over *.ck"),
        ({"host": "*.github.io"}, "is a wildcard over github.io"),
        ({"host": "*.GitHub.io."}, "is a wildcard over github.io"),
        ({"host": "*.compute.amazonaws.com"}, "is a wildcard over *.compute.amazonaws.com"),
        ({"host": "*.eu.compute.amazonaws.com"}, "is a wildcard over *.compute.amazonaws.com"),
        ({"host": "*.amazonaws.com"}, "is a wildcard over *.compute.amazonaws.com"),
        ({"host": "*.xn--55qx5d.cn"}, "is a wildcard over 公司.cn"),
        ({"host": "bücher.example"}, "is not ASCII"),
        ({"host": "10.0.0.1"}, "is an address: give its name, or say allow_private: true"),
        ({"host": "1.1.1.1"}, "is an address: give its name"),
        ({"host": "::1"}, "is an address: give its name"),
        ({"host": "127.0.0.1", "allow_private": True}, "is a loopback address, which is no destination"),
        ({"host": "169.254.169.254", "allow_private": True}, "is a metadata address, which is no destination"),
        ({"host": "::ffff:10.0.0.1", "allow_private": True}, "is a mapped address, which is no destination"),
        ({"host": "*.10.0.0.1", "allow_private": True}, "is a wildcard over an address"),
        ({"host": "0x7f.1"}, "is no IPv4 address"),
        ({**EXACT, "port": 443}, "port is not a key of a rule"),
        ({**EXACT, "ports": []}, "ports: [] is not a list with at least one entry"),
        ({**EXACT, "ports": 443}, "ports: 443 is not a list with at least one entry"),
        ({**EXACT, "ports": [0]}, "ports: 0 is not a whole number from 1 to 65535"),
        ({**EXACT, "ports": [65536]}, "ports: 65536 is not a whole number from 1 to 65535"),
        ({**EXACT, "ports": ["443"]}, "ports: '443' is not a whole number from 1 to 65535"),
        ({**EXACT, "ports": [True]}, "ports: True is not a whole number from 1 to 65535"),
        ({**EXACT, "scheme": "ftp"}, "scheme: 'ftp' is not one of https, http"),
        ({**EXACT, "methods": ["GET"]}, "methods: cannot be seen inside TLS"),
        ({**EXACT, "paths": ["/"]}, "paths: cannot be seen inside TLS"),
        ({**PLAIN, "methods": ["FETCH"]}, "methods: 'FETCH' is not one of DELETE, GET"),
        ({**PLAIN, "methods": ["CONNECT"]}, "methods: 'CONNECT' is not one of"),
        ({**PLAIN, "methods": ["get"]}, "methods: 'get' is not one of"),
        ({**PLAIN, "paths": ["debian"]}, "paths: 'debian' is not a plain path prefix"),
        ({**PLAIN, "paths": ["/a/../b"]}, "paths: '/a/../b' is not a plain path prefix"),
        ({**PLAIN, "paths": ["/a?b"]}, "paths: '/a?b' is not a plain path prefix"),
        ({**PLAIN, "paths": ["/*"]}, None),
        ({**EXACT, "allow_private": "yes"}, "allow_private: 'yes' is neither true nor false"),
        ({**EXACT, "pins": "loose"}, "pins: 'loose' is not one of strict, floating"),
        ({**EXACT, "names": 5}, "names: counts what is below a wildcard"),
        ({**WILD, "names": 0}, "names: 0 is not a whole number from 1 to 10000"),
        ({**EXACT, "limits": {"bytes": "many"}}, "limits: 'many' is not a size"),
        ({**EXACT, "limits": {"speed": 1}}, "limits: a mapping with bytes, connections, rate and idle is due"),
        ({**EXACT, "limits": {"connections": 0}}, "limits: connections: 0 is not a whole number from 1 to 4096"),
    ],
)
def test_bad_rules(rule: t.Any, said: str | None) -> None:
    if said is None:
        _policy(rule)
        return
    (problem,) = _problems(rule)
    assert said in problem
    assert problem.startswith("group some, rule 1")
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("one", "two", "said"),
    [
        (EXACT, {**EXACT, "pins": "strict"}, "contradict: pins is floating in one and strict in the other"),
        (EXACT, {**EXACT, "allow_private": True}, "contradict: allow_private is False in one and True in the other"),
        (EXACT, {**EXACT, "limits": {"rate": 5}}, "contradict: the same destination with other limits"),
        (WILD, {**WILD, "names": 5}, "contradict: the same destination with other limits"),
        (EXACT, {**EXACT, "scheme": "http", "ports": [443]}, "contradict: port 443 by https in one and by http in the other"),
    ],
)
def test_contradictions(one: dict[str, t.Any], two: dict[str, t.Any], said: str) -> None:
    document = {"groups": {"one": [one], "two": [two]}, "sandboxes": {"box": {"groups": ["one", "two"]}}}
    with pytest.raises(RulesError) as caught:
        allowlist.parse(document, SUFFIXES)
    assert any(said in problem and "one/" in problem and "two/" in problem for problem in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "groups: is not a mapping of names"),
        ({"groups": []}, "groups: is not a mapping of names"),
        ({"groups": {"A B": []}}, "group 'A B': is not a name"),
        ({"groups": {"a": {}}}, "group a: a list of rules is due, not dict"),
        ({"sandboxes": {"UPPER": {}}}, "sandbox 'UPPER': is not the name of a sandbox"),
        ({"sandboxes": {"box": []}}, "sandbox box: a mapping with groups, rules and limits is due"),
        ({"sandboxes": {"box": {"group": []}}}, "sandbox box: a mapping with groups, rules and limits is due"),
        ({"sandboxes": {"box": {"groups": ["gone"]}}}, "sandbox box: groups: ['gone'] is not a list of groups there are: none"),
        ({"sandboxes": {"box": {"groups": "gone"}}}, "sandbox box: groups: 'gone' is not a list of groups there are"),
        ({"sandboxes": {"box": {"limits": {"rate": "5"}}}}, "sandbox box: limits: rate: '5' is not a whole number"),
    ],
)
def test_bad_documents(document: t.Any, said: str) -> None:
    with pytest.raises(RulesError) as caught:
        allowlist.parse(document, SUFFIXES)
    assert any(said in problem for problem in caught.value.problems), caught.value.problems


def test_every_problem_is_told() -> None:
    assert len(_problems({"host": "*"}, EXACT, {"host": "com"}, {**EXACT, "host": "b.example.org", "pins": 1})) == 3


@pytest.mark.parametrize(("suffix", "due"), [("example.org", None), ("www.ck", None), ("a.github.io", None), ("b.eu.compute.amazonaws.com", None)])
def test_wildcards_that_one_owner_has(suffix: str, due: str | None) -> None:
    assert allowlist.shared(suffix, SUFFIXES) == due


def test_the_policy_has_the_sha256_of_what_it_says() -> None:
    assert _policy(EXACT).sha256 == _policy(dict(EXACT)).sha256
    assert _policy(EXACT).sha256 != _policy(WILD).sha256

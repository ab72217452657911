# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may leave a sandbox: the rules as declared, and the decision over one request. Nothing here does I/O.

A document is ``{"groups": {name: [rule…]}, "sandboxes": {name: {"groups": […], "rules": [rule…], "limits": {…}}}}``. There are
only rules that allow: what no rule names is denied, and a sandbox that is not named has no rule.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import canonical, hosts, spec
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.hosts import Host

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
NAMES = 32  # distinct names below a wildcard that one sandbox may use in a day, unless the rule says otherwise
DEFAULT = "default"  # the id of the rule that denies what no other rule allows
_PORTS = {"https": 443, "http": 80}
_GROUP = re.compile(r"[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?")
# Two servers may read these as two paths.
_UNCLEAR = re.compile(r"%(?:2e|2f|5c|25|00)|\\|//|/\.{1,2}(?:/|;|\Z)|;", re.IGNORECASE)


class RulesError(Exception):
    """Rules cannot be meant; :attr:`problems` has a line for each reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a sandbox, or a rule in each sandbox, may take. None is no limit of its own.

    *bytes* in both directions a day (UTC), *connections* at one time, *rate* new ones a minute, *idle* seconds without a byte.
    """

    bytes: int | None = None
    connections: int | None = None
    rate: int | None = None
    idle: int | None = None


SANDBOX_LIMITS = Limits(bytes=10 << 30, connections=64, rate=1200, idle=300)


@dataclasses.dataclass(frozen=True)
class Rule:
    """One destination that may be reached. *suffix* tells that *host* is what follows ``*.``; *names* counts then."""

    id: str
    host: Host
    suffix: bool
    scheme: str
    ports: tuple[int, ...]
    methods: tuple[str, ...]
    paths: tuple[str, ...]
    allow_private: bool
    pins: str
    names: int
    limits: Limits

    @property
    def pattern(self) -> str:
        """The host as it is written in a rule."""
        return f"*.{self.host.text}" if self.suffix else self.host.text

    def covers(self, host: Host) -> bool:
        """Whether *host* is this rule's: itself, or for a wildcard any name below, at whatever depth."""
        if self.suffix:
            return host.address is None and host.text.endswith("." + self.host.text)
        return host == self.host


@dataclasses.dataclass(frozen=True)
class Request:
    """What a sandbox asks for. *scheme* is ``https`` for a CONNECT; *method* and *path* are seen in plain HTTP only."""

    host: Host
    port: int
    scheme: str
    method: str = ""
    path: str = ""


@dataclasses.dataclass(frozen=True)
class Decision:
    """Whether a request may leave: the rule that allows it, or None, the id to record, and why, in one line."""

    rule: Rule | None
    id: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Permitted:
    """What one sandbox may do: its rules, the closest to a single host first, and its limits."""

    rules: tuple[Rule, ...] = ()
    limits: Limits = SANDBOX_LIMITS


class Policy:
    """The rules of all sandboxes, as :func:`parse` made them. *sha256* is that of the document."""

    def __init__(self, sandboxes: dict[str, Permitted], sha256: str) -> None:
        self.sandboxes = sandboxes
        self.sha256 = sha256
        self._exact: dict[tuple[str, str], list[Rule]] = {}
        self._suffix: dict[str, list[Rule]] = {}
        for name, permitted in sandboxes.items():
            for rule in permitted.rules:
                if rule.suffix:
                    self._suffix.setdefault(name, []).append(rule)
                else:
                    self._exact.setdefault((name, rule.host.text), []).append(rule)

    def decide(self, sandbox: str, request: Request) -> Decision:
        """Return what is decided over a request of *sandbox*: the first rule that allows it, else the nearest one's reason."""
        nearest: Decision | None = None
        for rule in (*self._exact.get((sandbox, request.host.text), ()), *self._suffix.get(sandbox, ())):
            if rule.covers(request.host):
                decision = judge(rule, request)
                if decision.rule:
                    return decision
                nearest = nearest or decision
        return nearest or Decision(None, DEFAULT, f"no rule of this sandbox names {request.host.text}")


def judge(rule: Rule, request: Request) -> Decision:
    """Return what *rule* alone decides over a request to a host that it covers."""
    if request.scheme != rule.scheme:
        return Decision(None, rule.id, f"{rule.pattern} is allowed by {rule.scheme}, not by {request.scheme}")
    if request.port not in rule.ports:
        return Decision(None, rule.id, f"port {request.port} is not allowed: {', '.join(map(str, rule.ports))} is")
    if request.scheme == "http":
        if request.method not in rule.methods:
            return Decision(None, rule.id, f"method {request.method} is not allowed: {', '.join(rule.methods)} is")
        if problem := _outside(rule.paths, request.path):
            return Decision(None, rule.id, problem)
    return Decision(rule, rule.id, "allowed")


def _outside(paths: tuple[str, ...], target: str) -> str:
    if "/" in paths:
        return ""
    path = target.partition("?")[0]
    if _UNCLEAR.search(path):
        return "a path that servers read in more than one way is not allowed where paths are limited"
    if any(path == prefix or path.startswith(prefix if prefix.endswith("/") else prefix + "/") for prefix in paths):
        return ""
    return f"this path is not allowed: {', '.join(paths)} is"


# -- reading rules


def parse(document: t.Any, suffixes: t.Collection[str]) -> Policy:
    """Return the policy that *document* tells. *suffixes* are the lines of the Public Suffix List.

    Raises RulesError with every problem there is, each in one line that names the group or sandbox and the rule.
    """
    problems: list[str] = []
    groups: dict[str, tuple[Rule, ...]] = {}
    for name, content in sorted(_mapping(document, "groups", problems).items()):
        if not isinstance(name, str) or not _GROUP.fullmatch(name):
            problems.append(f"group {name!r}: is not a name: 1 to 32 of a-z, 0-9, _ and -")
        else:
            groups[name] = rules(name, f"group {name}", content, suffixes, problems)
    sandboxes: dict[str, Permitted] = {}
    for name, content in sorted(_mapping(document, "sandboxes", problems).items()):
        where = f"sandbox {name}"
        if not isinstance(name, str) or not spec.NAME.fullmatch(name):
            problems.append(f"sandbox {name!r}: is not the name of a sandbox")
            continue
        if not isinstance(content, dict) or not set(content) <= {"groups", "rules", "limits"}:
            problems.append(f"{where}: a mapping with groups, rules and limits is due, and nothing else")
            continue
        wanted = content.get("groups", [])
        if not isinstance(wanted, list) or not all(isinstance(group, str) and group in groups for group in wanted):
            problems.append(f"{where}: groups: {wanted!r} is not a list of groups there are: {', '.join(sorted(groups)) or 'none'}")
            continue
        of_groups = [rule for group in wanted for rule in groups[group]]
        own = rules(name, where, content.get("rules", []), suffixes, problems)
        limits = _limits(where, content.get("limits", {}), problems, SANDBOX_LIMITS)
        ordered = sorted(dict.fromkeys([*of_groups, *own]), key=lambda rule: (rule.suffix, -rule.host.text.count(".")))
        sandboxes[name] = Permitted(tuple(ordered), limits)
    problems += _contradictions(groups, sandboxes)
    if problems:
        raise RulesError(problems)
    return Policy(sandboxes, canonical.sha256_hex(canonical.dumps({key: document.get(key, {}) for key in ("groups", "sandboxes")})))


def _mapping(document: t.Any, key: str, problems: list[str]) -> dict[t.Any, t.Any]:
    value = document.get(key, {}) if isinstance(document, dict) else None
    if isinstance(value, dict):
        return value
    problems.append(f"{key}: is not a mapping of names")
    return {}


def rules(group: str, where: str, content: t.Any, suffixes: t.Collection[str], problems: list[str]) -> tuple[Rule, ...]:
    """Return the rules in the list *content*, ids beginning with *group*; adds to *problems* what is wrong, each naming *where*."""
    if not isinstance(content, list):
        problems.append(f"{where}: a list of rules is due, not {type(content).__name__}")
        return ()
    found: dict[str, Rule] = {}
    for index, item in enumerate(content):
        named = item.get("host") if isinstance(item, dict) else None
        label = f"{where}, rule {index + 1}" + (f" ({canonical.printable(str(named)[:80].encode())})" if named is not None else "")
        try:
            rule = _rule(group, label, item, suffixes, problems)
        except ValueError as error:
            problems.append(f"{label}: {error}")
            continue
        repeated = sum(other.id.partition("#")[0] == rule.id for other in found.values())
        if repeated:
            rule = dataclasses.replace(rule, id=f"{rule.id}#{repeated + 1}")
        found[rule.id] = rule
    return tuple(found.values())


_KEYS = ("host", "scheme", "ports", "methods", "paths", "allow_private", "pins", "names", "limits")


def _rule(group: str, label: str, item: t.Any, suffixes: t.Collection[str], problems: list[str]) -> Rule:
    if not isinstance(item, dict) or "host" not in item:
        raise ValueError("a mapping with a host is due")
    if unknown := sorted(set(map(str, item)) - set(_KEYS)):
        raise ValueError(f"{unknown[0]} is not a key of a rule: use {', '.join(_KEYS)}")
    scheme = _one_of(item, "scheme", "https", ("https", "http"))
    if scheme == "https" and (seen := sorted({"methods", "paths"} & set(item))):
        raise ValueError(f"{seen[0]}: cannot be seen inside TLS: leave it out, or say scheme: http")
    ports = tuple(sorted(set(_list(item, "ports", [_PORTS[scheme]], _port))))
    methods = tuple(sorted(set(_list(item, "methods", ["GET", "HEAD"], _method)))) if scheme == "http" else ()
    paths = tuple(sorted(set(_list(item, "paths", ["/"], _path)))) if scheme == "http" else ()
    allow_private = item.get("allow_private", False)
    if not isinstance(allow_private, bool):
        raise ValueError(f"allow_private: {allow_private!r} is neither true nor false")
    host, suffix = _pattern(item["host"], suffixes)
    if host.address is not None and not allow_private:
        raise ValueError("is an address: give its name, or say allow_private: true when it has none")
    if host.address is not None and (kind := hosts.kind(host.address)) not in (None, hosts.PRIVATE):
        raise ValueError(f"is a {kind} address, which is no destination")
    if not suffix and "names" in item:
        raise ValueError("names: counts what is below a wildcard, and this is a single host")
    return Rule(
        id=f"{group}/{item['host'].lower().removesuffix('.')}:{','.join(map(str, ports))}",
        host=host,
        suffix=suffix,
        scheme=scheme,
        ports=ports,
        methods=methods,
        paths=paths,
        allow_private=allow_private,
        pins=_one_of(item, "pins", "floating", ("strict", "floating")),
        names=_count(item.get("names", NAMES), "names", 10_000),
        limits=_limits(label, item.get("limits", {}), problems, Limits()),
    )


def _pattern(value: t.Any, suffixes: t.Collection[str]) -> tuple[Host, bool]:
    if not isinstance(value, str):
        raise ValueError(f"host: {value!r} is not a text: put it in quotes")
    name = value.removeprefix("*.")
    if "*" in name:
        raise ValueError("* stands only before a dot at the start, such as *.example.org")
    host = hosts.parse(f"[{name}]" if _is_v6(name) else name)
    if host.address is None and "." not in host.text:
        raise ValueError("is a bare top-level name: name a host below it")
    suffix = name != value
    if suffix and host.address is not None:
        raise ValueError("is a wildcard over an address")
    if suffix and (covered := shared(host.text, suffixes)):
        raise ValueError(f"is a wildcard over {covered}, below which anybody may register names: name the hosts")
    return host, suffix


def _is_v6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def shared(suffix: str, suffixes: t.Collection[str]) -> str | None:
    """Return the public suffix that a wildcard over *suffix* would open, itself or one below it; None when there is none.

    *suffixes* are lines in the format of the Public Suffix List (publicsuffix.org/list), of both its sections.
    """
    above = suffix.partition(".")[2]
    for line in suffixes:
        entry = line.strip()
        if not entry or entry.startswith(("//", "!")):
            continue
        name = entry.removeprefix("*.")
        if not name.isascii():
            name = name.encode("idna").decode("ascii")
        if name == suffix or name.endswith("." + suffix):
            return entry
        if entry.startswith("*.") and name == above and f"!{suffix}" not in suffixes:
            return entry
    return None


def _contradictions(groups: dict[str, tuple[Rule, ...]], sandboxes: dict[str, Permitted]) -> list[str]:
    found: list[str] = []
    everywhere = dict.fromkeys([*(rule for of in groups.values() for rule in of), *(rule for of in sandboxes.values() for rule in of.rules)])
    known: dict[str, Rule] = {}
    for rule in everywhere:
        first = known.setdefault(rule.pattern, rule)
        for key in ("pins", "allow_private"):
            if getattr(rule, key) != getattr(first, key):
                found.append(f"{first.id} and {rule.id} contradict: {key} is {getattr(first, key)} in one and {getattr(rule, key)} in the other")
    for name, permitted in sandboxes.items():
        same: dict[t.Any, Rule] = {}
        for rule in permitted.rules:
            for port in rule.ports:
                first = same.setdefault((rule.pattern, rule.scheme, port, rule.methods, rule.paths), rule)
                if (first.names, first.limits) != (rule.names, rule.limits):
                    found.append(f"sandbox {name}: {first.id} and {rule.id} contradict: the same destination with other limits")
                other = same.setdefault((rule.pattern, port), rule)
                if other.scheme != rule.scheme:
                    found.append(f"sandbox {name}: {other.id} and {rule.id} contradict: port {port} by https in one and by http in the other")
    return list(dict.fromkeys(found))


def _limits(where: str, content: t.Any, problems: list[str], default: Limits) -> Limits:
    if not isinstance(content, dict) or not set(content) <= {"bytes", "connections", "rate", "idle"}:
        problems.append(f"{where}: limits: a mapping with bytes, connections, rate and idle is due, and nothing else")
        return default
    try:
        values: dict[str, int] = {key: _count(content[key], key, most) for key, most in _MOST.items() if key in content}
        if "bytes" in content:
            values["bytes"] = spec.size(content["bytes"])
    except ValueError as error:
        problems.append(f"{where}: limits: {error}")
        return default
    return dataclasses.replace(default, **values)


_MOST = {"connections": 4096, "rate": 1_000_000, "idle": 86400}


def _count(value: t.Any, key: str, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"{key}: {value!r} is not a whole number from 1 to {most}")
    return value


def _one_of(item: dict[str, t.Any], key: str, default: str, words: tuple[str, ...]) -> str:
    value = item.get(key, default)
    if value not in words:
        raise ValueError(f"{key}: {value!r} is not one of {', '.join(words)}")
    return str(value)


_Item = t.TypeVar("_Item")


def _list(item: dict[str, t.Any], key: str, default: list[t.Any], parser: t.Callable[[t.Any], _Item]) -> list[_Item]:
    value = item.get(key, default)
    if not isinstance(value, list) or not value:
        raise ValueError(f"{key}: {value!r} is not a list with at least one entry")
    return [parser(entry) for entry in value]


def _port(value: t.Any) -> int:
    return _count(value, "ports", 65535)


def _method(value: t.Any) -> str:
    if value not in METHODS:
        raise ValueError(f"methods: {value!r} is not one of {', '.join(METHODS)}")
    return str(value)


def _path(value: t.Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"/[A-Za-z0-9/._~!$&'()*+,=:@%-]*", value, re.ASCII) or _UNCLEAR.search(value):
        raise ValueError(f"paths: {value!r} is not a plain path prefix, such as /debian/")
    return value

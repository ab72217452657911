# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Redaction: what is generated from the rules' own shapes never comes through, and what is no secret does."""

from __future__ import annotations

import base64
import copy
import json
import random
import re
import typing as t
import urllib.parse
from pathlib import Path

import pytest
import shapes
import yaml
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import expressions, known_secrets, pseudonyms, redaction

ROOT = Path(__file__).resolve().parents[2]
CONFIG: dict[str, t.Any] = yaml.safe_load((ROOT / "configs" / "logging.yml").read_text(encoding="utf-8"))
CONFIG["logging_rules_enabled"] = {"ip-address": True}
RULES = {rule["id"]: rule for rule in CONFIG["logging_rules"]}
BY_SHAPE = [name for name, rule in RULES.items() if "regex" in rule]
ALLOWED = CONFIG["logging_allowlist"]["regexes"]
NOW = 1_795_500_000.0  # in November 2026
MARK = r"\[REDACTED:[a-z0-9-]+:[0-9a-f]{12}\]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def redactor(folder: Path) -> redaction.Redactor:
    known_secrets.remember(folder, {"egress": HOST_SECRETS[0], "control": HOST_SECRETS[1]})
    return redaction.Redactor.load(CONFIG, folder, lambda: NOW)


HOST_SECRETS = ("q7Lw2ZkV9mXc4TbN8rHd", "p+3f/Qz8JvYk1WmB6tR/xx==")

EVENT: dict[str, t.Any] = {
    "action": "run.start",
    "class": "process_activity",
    "actor": {"type": "operator", "name": "root", "groups": ["docker", "audit"]},
    "sandbox": "default",
    "resource": "/workspace/src/Main.py",
    "argv": ["/usr/bin/python3", "-m", "pytest", "--maxfail=1", "tests/unit/test_gate.py"],
    "request_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "decision": "allow",
    "policy_ids": ["global-0001", "sandbox-default-0007"],
    "permit_id": "01J9Z3K4M5N6P7Q8R9S0T1V2W3",
    "reason": "the command is on the list of what this sandbox may run, and its working set has room",
    "data_class": "internal",
    "outcome": "success",
    "trace_id": "5b8aa5a2d2c872e8321cf37308d69df2",
    "detail": {"bytes": 10432, "duration_us": 1795500000123456789, "rule": "commands.pytest", "deep": {"list": [{"note": "2026-11-24T12:00:00Z"}]}},
}


def placed(where: str, text: str) -> dict[str, t.Any]:
    """Return the event with *text* in one of its fields."""
    event = copy.deepcopy(EVENT)
    if where == "key":
        event["detail"][text] = "value"
    elif where == "deep":
        event["detail"]["deep"]["list"][0]["note"] = text
    elif where == "name":
        event["actor"]["name"] = text
    elif where == "argv":
        event["argv"].insert(3, text)
    elif where == "groups":
        event["actor"]["groups"].append(text)
    else:
        event[where] = text
    return event


FIELDS = ("action", "class", "sandbox", "resource", "reason", "data_class", "trace_id", "key", "deep", "name", "argv", "groups")


def prose(rng: random.Random, text: str) -> str:
    return rng.choice(("{}", "see {} there", "found: {}.", "({})", '"{}"', "a\tb {}\nand so on", "é {} ü", "x={}")).format(text)


def read_everywhere(value: t.Any) -> str:
    """Return all that can be read in *value*: its texts, and these without escapes, URL codes, line breaks and base64."""
    texts: list[str] = []

    def walk(one: t.Any) -> None:
        if isinstance(one, dict):
            for key, item in one.items():
                walk(key)
                walk(item)
        elif isinstance(one, list):
            for item in one:
                walk(item)
            walk("".join(item for item in one if isinstance(item, str)))
        else:
            texts.append(str(one))

    walk(value)
    for text in list(texts):
        texts.append(urllib.parse.unquote(text))
        texts.append(re.sub(r"\\(.)", lambda found: {"n": "\n", "t": "\t"}.get(found[1], found[1]), text))
        texts.append(re.sub(r"\s", "", text))
        for run in re.findall(r"[A-Za-z0-9+/]{20,}", text):
            texts += [base64.b64decode(run[start : start + (len(run) - start) // 4 * 4]).decode("latin-1") for start in range(4)]
    return "\n".join(texts)


BEFORE = read_everywhere(EVENT)


def leaks(event: dict[str, t.Any], secret: str) -> list[str]:
    """Return the parts of *secret*, 8 characters each (or all, if it has fewer), that can be read in *event* and not in EVENT."""
    readable = read_everywhere(event)
    size = min(8, len(secret))
    parts = {secret[place : place + size] for place in range(len(secret) - size + 1)}
    return [part for part in parts if part in readable and part not in BEFORE and not any(part in name for name in RULES)]


def broken(rng: random.Random, text: str, secret: str) -> str:
    """Return *text* with a line break inside of *secret*, where a tool that folds long lines may put one."""
    start = text.index(secret)
    inside = [place for place in range(start + 1, start + len(secret)) if text[place - 1].isalnum() and text[place].isalnum()]
    if not inside:
        return text
    place = rng.choice(inside)
    return text[:place] + rng.choice(("\n", "\r\n", "\\\n    ", "\n  ")) + text[place:]


CODINGS: dict[str, t.Callable[[random.Random, str, str], str]] = {
    "plain": lambda rng, text, _secret: prose(rng, text),
    "json": lambda rng, text, _secret: json.dumps({"body": prose(rng, text), "n": 1}),
    "json-twice": lambda rng, text, _secret: json.dumps(json.dumps({"body": prose(rng, text)})),
    "url": lambda rng, text, _secret: "https://host.example/path?a=1&q=" + urllib.parse.quote(prose(rng, text), safe=""),
    "lines": lambda rng, text, secret: prose(rng, broken(rng, text, secret)),
    "json-lines": lambda rng, text, secret: json.dumps({"body": prose(rng, broken(rng, text, secret))}),
}


def coded(rng: random.Random, text: str) -> str:
    """Return base64 of *text* with something around it, in one of its alphabets, folded or not."""
    content = prose(rng, text).rjust(20).encode()
    made = rng.choice((base64.b64encode, base64.urlsafe_b64encode))(content).decode()
    made = rng.choice((made, made.rstrip("="), re.sub(r"(.{76})", r"\1\n", made)))
    return rng.choice(("{}", "data: {}", "blob/{}", '"{}"')).format(made)


@pytest.mark.parametrize("name", BY_SHAPE)
def test_generated_secrets_never_come_through(redactor: redaction.Redactor, name: str) -> None:
    rule = RULES[name]
    rng = random.Random(f"20261124 {name}")
    cases = [(coding, where) for coding in CODINGS for where in rng.sample(FIELDS, 5)]
    cases += [("base64", where) for where in rng.sample(FIELDS, 5) if rule.get("base64")]
    for coding, where in cases:
        text, secret = shapes.sample(rng, rule, ALLOWED)
        put = coded(rng, text) if coding == "base64" else CODINGS[coding](rng, text, secret)
        event = placed(where, put)
        before = copy.deepcopy(event)
        found, counts = redactor(event)
        assert event == before
        assert len(secret) < 4 or leaks(found, secret) == [], (coding, where, put, found)
        assert counts
        # What was redacted is left alone.
        again, more = redactor(found)
        assert again == found and more == {}, (put, found, again)


@pytest.fixture(scope="module")
def thorough(redactor: redaction.Redactor, folder: Path) -> redaction.Redactor:
    """The same redactor without its short way for events that have nothing."""

    class Thorough(redaction.Redactor):
        def _nothing_in(self, event: dict[str, t.Any]) -> bool:
            return False

    return Thorough.load(CONFIG, folder, lambda: NOW)


def small(rng: random.Random, put: t.Any) -> dict[str, t.Any]:
    """Return an event as services send most of them, without lists, and with *put* somewhere in it."""
    digest = rng.randbytes(32).hex()
    detail: dict[str, t.Any] = {"call": digest[:32], "max_tokens": 64000, "stream": False, "price": "operator", "bytes": rng.randrange(11 * 10**10)}
    event: dict[str, t.Any] = {"action": "llm.call", "actor": {"type": "sandbox", "name": "s"}, "request_sha256": digest, "trace_id": None, "detail": detail}
    if rng.random() < 0.2 and isinstance(put, str):
        detail[put] = rng.choice((1, True, "x", None))
    else:
        where = rng.choice((event, detail, event["actor"]))
        where[rng.choice(("reason", "resource", "asked_model", "value", "name", "count"))] = put
    return event


@pytest.mark.parametrize("name", BY_SHAPE)
def test_the_short_way_finds_what_the_long_one_does(redactor: redaction.Redactor, thorough: redaction.Redactor, name: str) -> None:
    rng = random.Random(f"20261129 {name}")
    for coding in [*CODINGS, *(["base64"] if RULES[name].get("base64") else [])]:
        for _turn in range(5):
            text, secret = shapes.sample(rng, RULES[name], ALLOWED)
            event = small(rng, coded(rng, text) if coding == "base64" else CODINGS[coding](rng, text, secret))
            found, counts = redactor(event)
            assert (found, counts) == thorough(event), event
            # What is shorter is not found in two pieces.
            assert counts or len(secret) < 4, event


def test_the_short_way_is_taken_for_what_has_nothing_and_for_nothing_else(redactor: redaction.Redactor, thorough: redaction.Redactor) -> None:
    rng = random.Random(20261129)
    words = ["llm.charge", "m", "näive", "4111 1111 1111 1111", "+49 30 1234567", "a\nb", "100%", "\\u0041", *HOST_SECRETS, "password", "Token"]
    deep: t.Any = "x"
    for _level in range(redaction.MOST_DEPTH + 1):
        deep = {"a": deep}
    short = 0
    for turn in range(3000):
        joined = rng.choice((" ", "", "=")).join(rng.choice(words) for _word in range(rng.randrange(3)))
        put = rng.choice((joined, joined, rng.randbytes(16).hex(), rng.randrange(10**18), 1.5, {"a": joined, "value": joined}, [joined, "x"]))
        event = small(rng, put)
        short += redactor._nothing_in(event)
        assert redactor(event) == thorough(event), (turn, event)
    assert 100 < short < 2000
    with pytest.raises(redaction.RedactionError, match="nested deeper"):
        redactor(small(rng, deep))


@pytest.mark.parametrize("name", "password DB_PASSWORD accessToken client-secret X-Api-Key Authorization stripe.secret_key pwd Set-Cookie".split())
@pytest.mark.parametrize("value", ["correct horse battery staple", "hunter2", "p", "päss wörd", "-x"])
def test_the_name_of_a_field_or_option_is_enough(redactor: redaction.Redactor, name: str, value: str) -> None:
    mark = re.compile(rf"\[REDACTED:secret-field:{pseudonyms_of(redactor, value)}\]")
    for detail, want in (
        ({name: value}, {name: "M"}),
        ({"n": 1, name: [value, [value]], "m": 2}, {"n": 1, name: ["M", ["M"]], "m": 2}),
        ({"env": [{"name": name, "value": value}]}, {"env": [{"name": name, "value": "M"}]}),
        (["tool", f"--{name}", value, "--out", "x"], ["tool", f"--{name}", "M", "--out", "x"]),
    ):
        found, counts = redactor({"detail": detail})
        assert json.loads(mark.sub("M", json.dumps(found["detail"]))) == want
        assert set(counts) == {"secret-field"}


def pseudonyms_of(redactor: redaction.Redactor, value: str) -> str:
    return redactor.pseudonyms.of("secret", value)


def test_numbers_are_looked_at_too(redactor: redaction.Redactor) -> None:
    found, counts = redactor({"detail": {"card": 4111111111111111, "password": 12345678, "bytes": 12345678, "ok": True, "time": 1795500000123456789}})
    assert counts == {"card-number": 1, "secret-field": 1}
    assert re.fullmatch(MARK, found["detail"].pop("card")) and re.fullmatch(MARK, found["detail"].pop("password"))
    assert found["detail"] == {"bytes": 12345678, "ok": True, "time": 1795500000123456789}


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("how", ["text", "list", "escaped", "escaped twice", "cut"])
def test_private_keys_over_lines(redactor: redaction.Redactor, how: str, end: bool) -> None:
    rng = random.Random(5)
    lines = ["-----BEGIN OPENSSH PRIVATE KEY-----", *("".join(rng.choices(shapes.ALNUM + "+/", k=70)) for _line in range(9))]
    lines += ["-----END OPENSSH PRIVATE KEY-----"] if end else []
    text = "\n".join(lines)
    put: t.Any = {"text": text, "list": ["cat key", *lines], "escaped": json.dumps(text), "escaped twice": json.dumps(json.dumps(text)), "cut": text[:200]}[how]
    found, counts = redactor({"detail": {"out": put, "after": "kept"}})
    assert set(counts) == {"private-key"} and found["detail"]["after"] == "kept"
    assert not any(line[:20] in json.dumps(found) for line in lines[1:10])
    assert how != "list" or found["detail"]["out"][0] == "cat key"


def test_equal_secrets_have_equal_pseudonyms_in_every_coding(redactor: redaction.Redactor) -> None:
    secret = "ghp_" + "Ab3" * 12
    texts = [secret, json.dumps([secret]), urllib.parse.quote(f"t={secret}&", safe=""), base64.b64encode(f"got {secret}".encode()).decode()]
    texts += [f"{secret[:20]}\n{secret[20:]}", f"two: {secret} {secret}"]
    found, counts = redactor({"argv": texts})
    assert counts == {"github-token": len(texts) + 1}
    assert len(set(re.findall(MARK, json.dumps(found)))) == 1


@pytest.mark.parametrize("value", HOST_SECRETS)
@pytest.mark.parametrize("coding", [*CODINGS, "base64"])
def test_the_hosts_own_secrets(redactor: redaction.Redactor, folder: Path, coding: str, value: str) -> None:
    rng = random.Random(coding)
    for where in FIELDS:
        put = coded(rng, value) if coding == "base64" else CODINGS[coding](rng, value, value)
        found, counts = redactor(placed(where, put))
        assert leaks(found, value) == [] and "host-secret" in counts
    assert value not in (folder / "known.json").read_text()
    assert not any(value in str(one) for one in vars(redactor._known).values())


def test_a_group_of_secrets_is_declared(tmp_path: Path) -> None:
    known_secrets.remember(tmp_path, {"egress/token": "ofAnother1234"})
    known = known_secrets.KnownSecrets(tmp_path)

    def found() -> list[str]:
        text = "ofAnother1234 oneSecret1234 twoSecret1234 newSecret1234"
        return [text[start:end][:3] for start, end in known.find(text)]

    for declared, changed, due in (
        ({"one": "oneSecret1234", "two": "twoSecret1234"}, ["group/one", "group/two"], ["ofA", "one", "two"]),
        ({"one": "oneSecret1234", "two": "twoSecret1234"}, [], ["ofA", "one", "two"]),
        ({"two": "newSecret1234"}, ["group/one", "group/two"], ["ofA", "new"]),
        ({}, ["group/two"], ["ofA"]),
    ):
        assert known_secrets.differences(tmp_path, "group", declared) == changed
        known_secrets.declare(tmp_path, "group", declared)
        assert known_secrets.differences(tmp_path, "group", declared) == []
        assert known.changed() == bool(changed)
        assert found() == due
    with pytest.raises(known_secrets.KnownSecretsError, match="short: a secret without a run of 8"):
        known_secrets.declare(tmp_path, "group", {"short": "abc"})


def test_known_secrets_come_and_go(tmp_path: Path) -> None:
    def found(value: str) -> dict[str, int]:
        return redaction.Redactor.load({"logging_rules": [RULE]}, tmp_path, lambda: NOW)({"reason": f"x {value} y"})[1]

    known_secrets.remember(tmp_path, {"a": "first-Secret0123", "b": "Secret4567-second"})
    known_secrets.remember(tmp_path, {"a": "anotherSecret0123"})
    assert [found(value) for value in ("first-Secret0123", "anotherSecret0123", "Secret4567-second")] == [{}, {"host-secret": 1}, {"host-secret": 1}]
    known_secrets.unlearn(tmp_path, ["b", "c"])
    assert [found(value) for value in ("anotherSecret0123", "Secret4567-second")] == [{"host-secret": 1}, {}]
    before = (tmp_path / "known.json").read_bytes()
    with pytest.raises(known_secrets.KnownSecretsError, match="c: a secret without a run of 8 letters or digits"):
        known_secrets.remember(tmp_path, {"d": "longEnough01", "c": "!?-abc"})
    assert (tmp_path / "known.json").read_bytes() == before
    (tmp_path / "known.json").write_bytes(before[:-20])
    with pytest.raises(known_secrets.KnownSecretsError, match=r"known\.json is not a file of known secrets"):
        found("x")


def test_what_was_no_secret_before_is_one_once_it_is_declared(tmp_path: Path) -> None:
    redactor = redaction.Redactor.load(CONFIG, tmp_path, lambda: NOW)
    event = {"detail": {"told": "Zk3vQ8mPq2Lw"}}
    for _turn in range(2):
        assert redactor(event) == (event, {})
    known_secrets.remember(tmp_path, {"a": "Zk3vQ8mPq2Lw"})
    assert redactor(event)[1] == {"host-secret": 1}
    (tmp_path / "known.json").write_text("{}")
    for _turn in range(2):
        with pytest.raises(known_secrets.KnownSecretsError, match=r"known\.json is not a file of known secrets"):
            redactor(event)
    (tmp_path / "known.json").unlink()
    assert redactor(event) == (event, {})


def test_one_look_is_for_all_that_came_before_it(tmp_path: Path) -> None:
    redactor = redaction.Redactor.load(CONFIG, tmp_path, lambda: NOW)
    digest = "5e" * 16
    event = {"request_sha256": digest, "detail": {"told": "Zk3vQ8mPq2Lw"}}
    assert redactor.redacted(event) == (event, {})
    known_secrets.remember(tmp_path, {"a": "Zk3vQ8mPq2Lw", "b": digest})
    assert redactor.redacted(event) == (event, {})
    redactor.look()
    assert redactor.redacted(event)[1] == {"host-secret": 2}
    # Where a digest alone is new, it is looked through as well.
    assert redactor.redacted({"request_sha256": digest})[1] == {"host-secret": 1}
    (tmp_path / "known.json").write_text("{}")
    with pytest.raises(known_secrets.KnownSecretsError, match=r"known\.json is not a file of known secrets"):
        redactor.look()


def test_digests_are_looked_through_for_all_that_can_be_in_them(tmp_path: Path) -> None:
    rules = [
        {"id": "number", "shapes": ["0" * 14], "regex": "[0-9]{14}"},
        {"id": "word", "keywords": ["fade"], "regex": "fade[0-9]{4}"},
    ]
    redactor = redaction.Redactor.load({"logging_rules": rules}, tmp_path, lambda: NOW)
    plain = "a1" * 32
    assert redactor({"request_sha256": plain}) == ({"request_sha256": plain}, {})
    for part, kind in (("12345678901234", "number"), ("fade1234", "word")):
        digest = "a1" * 10 + part + "a1" * 10
        assert redactor({"request_sha256": digest, "detail": {"call": plain}})[1] == {kind: 1}, digest


# --- what is not a secret


@pytest.mark.parametrize(
    "text",
    [
        "password: string",
        "password=$PASSWORD",
        "password=${DB_PASSWORD}",
        "--token <your token>",
        "Authorization: Bearer {{ token }}",
        "the passwords of the users are in /etc/shadow",
        "git clone git@github.com:owner/name.git",
        "left-pad@1.3.0 and root@example.org, getty@tty1.service",
        "commit 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "550e8400-e29b-41d4-a716-446655440000 at 2026-11-24T14:21:30.123456Z",
        "4111 1111 1111 1112 and 1234567890123456",
        "GB29 NWBK 6016 1331 9268 18",
        "http://localhost:3128/path and https://host.example:8443/a@b",
        "max_tokens=64000 and next_token_count: 5",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEm9cXk1V3Jp",
        "/opt/venv/lib/python3.11/site-packages/Crypto/Cipher/AES.py",
        "100% of 12%20 \\n \\u00e9 and a\nline\nmore",
    ],
)
def test_what_is_left_alone(redactor: redaction.Redactor, text: str) -> None:
    for event in ({"reason": text}, {"argv": ["tool", text]}, {"detail": {text: text}}):
        found, counts = redactor(event)
        assert counts == {} and found is event


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("OPENAI_API_KEY=sk-proj-abcdefghij0123456789\nPATH=/usr/bin", "OPENAI_API_KEY=M\nPATH=/usr/bin"),
        ("used sk-ant-api03-abcdefghij0123456789\nfor this", "used M\nfor this"),
        ("postgres://app:s3cr3t@db.internal:5432/app?sslmode=require", "postgres://app:M@db.internal:5432/app?sslmode=require"),
        ("curl -H 'Authorization: Bearer abc.def-123' https://host.example", "curl -H 'Authorization: Bearer M' https://host.example"),
        ("Cookie: sid=abc; theme=dark", "Cookie: M"),
        ("mail jane.doe@company.org, please", "mail M, please"),
        ("card 4111 1111 1111 1111 12/27", "card M 12/27"),
        ("to DE89 3704 0044 0532 0130 00 EUR 500", "to M EUR 500"),
        ("call +49 170 1234567 or (555) 223-4567.", "call M or M."),
        ("mysql -u root -pS3cret! db", "mysql -u root -pM db"),
        ('{"auths": {"r.example": {"auth": "dXNlcjpwYXNz"}}}', '{"auths": {"r.example": {"auth": "M"}}}'),
        ("DB=Server=db;User Id=app;Password=x1y;Timeout=5", "DB=Server=db;User Id=app;Password=M;Timeout=5"),
    ],
)
def test_no_more_than_the_secret_is_taken(redactor: redaction.Redactor, text: str, want: str) -> None:
    assert re.sub(MARK, "M", redactor({"reason": text})[0]["reason"]) == want


def test_addresses_by_their_switch(folder: Path) -> None:
    event = {"reason": "from 192.0.2.17 and 2001:db8::1:2 to 127.0.0.1 at 12:30:45"}
    for on, want in ((True, "from M and M to 127.0.0.1 at 12:30:45"), (False, event["reason"])):
        made = redaction.Redactor.load(CONFIG | {"logging_rules_enabled": {"ip-address": on}}, folder, lambda: NOW, trial=False)
        assert re.sub(MARK, "M", made(event)[0]["reason"]) == want


# --- marks


def test_marks_of_others_are_respected_and_hide_nothing(redactor: redaction.Redactor) -> None:
    mark = "[REDACTED:anything:0123456789ab]"
    for text in (mark, f"password={mark}", f'{{"token": "{mark}"}}', f"Authorization: Bearer {mark}"):
        event = {"detail": {"password": mark, "a": text, mark: [mark, f"--token={mark}"]}}
        assert redactor(event) == (event, {})
    found, _counts = redactor({"reason": f"password={mark}S3cretS3cret", "detail": {"token": f"{mark} more"}})
    assert "S3cret" not in json.dumps(found) and "more" not in json.dumps(found) and mark in found["reason"]
    assert redactor(found) == (found, {})


def test_two_keys_never_become_one(redactor: redaction.Redactor) -> None:
    secret = "ghp_" + "Zy9" * 12
    mark = redactor({"reason": secret})[0]["reason"]
    found, _counts = redactor({"detail": {secret: 1, mark: 2, mark + "~2": 3}})
    assert sorted(found["detail"].values()) == [1, 2, 3] and secret not in json.dumps(found)


# --- pseudonyms


def test_pseudonyms_are_forgotten_for_good(tmp_path: Path) -> None:
    clock = [NOW]
    made = redaction.Redactor.load(CONFIG, tmp_path, lambda: clock[0])
    event = {"reason": "jane.doe@company.org used ghp_" + "a1B" * 12}

    def marks() -> list[str]:
        return re.findall(MARK, made(event)[0]["reason"])

    november = marks()
    assert marks() == november and len(set(november)) == 2
    assert redaction.Redactor.load(CONFIG, tmp_path, lambda: NOW, trial=False)(event) == made(event)
    clock[0] += 31 * 86400
    december = marks()
    assert set(december).isdisjoint(november)
    keys = tmp_path / "pseudonyms"
    assert sorted(path.name for path in keys.iterdir()) == [f"{group}-2026-{month}.key" for group in ("personal", "secret") for month in ("11", "12")]
    assert {path.stat().st_mode & 0o777 for path in keys.iterdir()} == {0o600} and keys.stat().st_mode & 0o777 == 0o700
    # Only one group, by another process: at once, and not as it was when the clock goes back.
    assert pseudonyms.forget(keys, "2026-11", ["personal"]) == ["personal-2026-11.key"]
    clock[0] = NOW
    again = marks()
    assert again[0] != november[0] and again[1] == november[1]
    assert made.forget("2026-12") == ["personal-2026-11.key", "personal-2026-12.key", "secret-2026-11.key", "secret-2026-12.key"]
    assert set(marks()).isdisjoint([*november, *december, *again])


@pytest.mark.parametrize(("arguments", "text"), [(("2026-13",), "'2026-13' is no month"), (("2026-11", ["all"]), "there is no group 'all'")])
def test_forgetting_nonsense(tmp_path: Path, arguments: tuple[t.Any, ...], text: str) -> None:
    with pytest.raises(pseudonyms.PseudonymError, match=text):
        pseudonyms.forget(tmp_path, *arguments)


def test_a_key_that_is_none_is_never_replaced(tmp_path: Path) -> None:
    made = redaction.Redactor.load(CONFIG, tmp_path, lambda: NOW)
    event = {"reason": "jane.doe@company.org"}
    made(event)
    path = tmp_path / "pseudonyms" / "personal-2026-11.key"
    path.write_bytes(b"short")
    with pytest.raises(pseudonyms.PseudonymError, match=r"personal-2026-11\.key is no key of 32 bytes"):
        made(event)
    assert path.read_bytes() == b"short"


# --- rules that cannot be used

RULE = {"id": "mine", "regex": "x[0-9]{4}", "keywords": ["x"]}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"regex": "x[0-9"}, "mine: regex is not a regular expression: unterminated character set"),
        ({"regex": "(x{1,20}){1,20}y"}, "mine: regex can backtrack without end"),
        ({"regex": "x+"}, "mine: regex repeats without an upper bound"),
        ({"regex": "x{0,4}"}, "mine: regex matches the empty text"),
        ({"regex": r"(x)\1"}, "mine: regex has a groupref, which is not supported here"),
        ({"field": "(a|ab|b){1,40}$"}, "mine: field can backtrack without end"),
        ({"allowlist": {"regexes": ["(a|aa){1,40}$"]}}, "mine: allowlist: '(a|aa){1,40}$' can backtrack without end"),
        ({"allowlist": {"words": []}}, "mine: allowlist: is a mapping with regexes and stopwords"),
        ({"keywords": []}, "mine: needs keywords (or shapes)"),
        ({"keywords": ["X"]}, "mine: keywords are in small letters"),
        ({"keywords": "x"}, "mine: keywords is 'x', which is of the wrong type"),
        ({"entropy": True}, "mine: entropy is True, which is of the wrong type"),
        ({"secret_group": 1}, "mine: secret_group is 1, but regex has 0 groups"),
        ({"check": "isbn"}, "mine: there is no check 'isbn'; there are: card, iban"),
        ({"colour": "red"}, "mine: 'colour' is no part of a rule; these are: id,"),
        ({"id": "Mine!"}, "rule 2 has no usable id"),
        ({"id": "first"}, "first is there twice"),
        ({"id": "host-secret"}, "rule 2 has no usable id"),
    ],
)
def test_a_bad_rule_is_refused_by_its_name(tmp_path: Path, change: dict[str, t.Any], text: str) -> None:
    config = {"logging_rules": [RULE | {"id": "first"}, RULE | change]}
    with pytest.raises(redaction.RedactionError, match=re.escape(text)) as refused:
        redaction.Redactor.load(config, tmp_path)
    assert len(refused.value.problems) == 1 and "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({}, "logging_rules: a list of rules is needed"),
        ({"logging_rules": []}, "logging_rules: a list of rules is needed"),
        ({"logging_rules": [RULE, "x"]}, "logging_rules: rule 2 has no usable id"),
        ({"logging_rules": [RULE], "logging_rules_enabled": {"yours": True}}, "logging_rules_enabled: there is no rule 'yours'"),
        ({"logging_rules": [RULE], "logging_rules_enabled": {"mine": "no"}}, "logging_rules_enabled: write the id of a rule and true or false"),
        ({"logging_rules": [RULE], "logging_allowlist": ["x"]}, "logging_allowlist: is a mapping"),
    ],
)
def test_bad_settings(tmp_path: Path, config: dict[str, t.Any], text: str) -> None:
    with pytest.raises(redaction.RedactionError, match=re.escape(text)):
        redaction.Redactor.load(config, tmp_path)


CATASTROPHIC = [
    "(a+)+$",
    "(a{1,50}){1,50}b",
    "(?:a|ab|b){1,40}c",
    "(?:[a-z]{0,10},?){1,30};",
    r"(?:\w{1,30}\s?){1,30}!",
    "(?:x?){30}y",
    "(?:x?x?){1,20}z",
    "a{0,500}a{0,500}b",
    "[ab]{0,99}[bc]{0,99}[b]{0,99}d",
    r"(?=(?:a{1,30}){1,30}b)a",
    "((?:a{1,9}|b){1,9}){1,9}c",
    "(?i:(?:Ab|aB){1,40})c",
    "(?:.{1,40}=){1,40};",
    ".*x",
    "x.*?y",
    "a{0,50000}b",
    "z[a-z]{0,9999}Z",  # one way from each place, and still too long a way from every place
]


@pytest.mark.parametrize("expression", CATASTROPHIC)
def test_catastrophic_expressions_are_refused(expression: str) -> None:
    with pytest.raises(expressions.ExpressionError):
        expressions.compile_checked(expression)


@pytest.mark.parametrize(
    "expression",
    [
        r"\d(?:[ -]?\d){12,18}",
        "(?:[a-z]{1,20}-){1,20}[0-9]",
        "BEGIN--(?:[^-]|-(?!-)){0,9999}+--",
        r"(?:[0-9a-f]{4}:){7}[0-9a-f]{4}",
        "ab{1,9}?c",
        "(?>a{1,99})a{1,99}b",
        r"(?<![a-z])x{2}\b",
        "é{1,9}ü",
    ],
)
def test_sound_expressions_are_not(expression: str) -> None:
    assert expressions.compile_checked(expression).pattern == expression


@pytest.mark.parametrize(
    ("expression", "want"),
    [
        ("ghp_[a-z]{3}", {"ghp_"}),
        ("(?<!x)gh[OP]_x", {"gho_x", "ghp_x"}),
        ("(?i:api[_-]?key|Token)s?=", {f"{word}{end}=" for word in ("api_key", "api-key", "apikey", "token") for end in ("", "s")}),
        ("(?:a|b[0-9]c)d", {"a", "b"}),
        ("[a-z]x", {""}),
        ("(?:ab){2}c", {""}),
        ("(?:a|)b", {"ab", "b"}),
    ],
)
def test_what_every_match_begins_with(expression: str, want: set[str]) -> None:
    assert expressions.beginnings(expression) == want


# --- hostile events


def test_an_event_nested_too_deep_is_refused(redactor: redaction.Redactor) -> None:
    def nested(depth: int, wrap: t.Callable[[t.Any], t.Any]) -> t.Any:
        value: t.Any = "ghp_" + "a1B" * 12
        for _level in range(depth):
            value = wrap(value)
        return value

    for wrap in (lambda value: {"a": value}, lambda value: [value]):
        assert redactor({"detail": nested(50, wrap)})[1] == {"github-token": 1}
        with pytest.raises(redaction.RedactionError, match="nested deeper than 64"):
            redactor({"detail": nested(200, wrap)})


@pytest.mark.parametrize(
    "unit",
    [
        "password=",
        "curl -u a:b ",
        "eyJaaaaaaaaaaa.",
        "%41",
        "\\\\",
        "a\nb",
        "[REDACTED:x:0123456789ab]",
        "QUJDREVGR0hJSktMTU5P ",
        "4111 1111 1111 1111 ",
        "://a:b@",
        "\ud800a@b.cc ",
    ],
)
def test_work_is_bounded_and_nothing_unseen_comes_through(redactor: redaction.Redactor, monkeypatch: pytest.MonkeyPatch, unit: str) -> None:
    monkeypatch.setattr(redaction, "WORK", 1 << 20)
    secret = "ghp_" + "a1B" * 12
    event = {"detail": {"first": unit * (100_000 // len(unit)), "second": f"found {secret}"}, "argv": [secret] * 9}
    found, counts = redactor(event)
    assert secret not in json.dumps(found)
    assert set(counts) & {"github-token", "unchecked"}
    # Each step of the work is counted; only the last may go beyond what there is.
    assert redactor._work > -200_000
    assert redactor(found) == (found, {})

# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway as the tools of its host see it: what a declaration changes, which budgets are over, and how a sandbox gets in."""

from __future__ import annotations

import pathlib
import typing as t

import modules
import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import budgets, llm, llm_access, lock, recorder, stack
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places

AT = Places("/home", "/data", "/run/d")
DAY: dict[str, t.Any] = {"name": "day", "scope": "total", "limit": 10}
RUN: dict[str, t.Any] = {"name": "each", "scope": "run", "limit": 2}
MIDNIGHT = 1_800_000_000 // 86400 * 86400
NOON = MIDNIGHT + 43200


def declared(*wanted: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    return [budget.declared() for budget in budgets.parse(list(wanted))]


def row(**changes: t.Any) -> llm.Row:
    made = {
        "name": "day", "subject": "total", "mode": "hard", "window": "day", "zone": "UTC", "limit": 10_000_000, "spent": 0, "held": 0,
        "since": MIDNIGHT, "until": MIDNIGHT + 86400,
    }  # fmt: skip
    return {**made, **changes}


# -- budgets


@pytest.mark.parametrize(
    ("before", "wanted", "exclusive", "said"),
    [
        ([], [DAY], False, ["Declared budget day: it was not there"]),
        ([DAY], [DAY], True, []),
        ([DAY], [{**DAY, "limit": "10.000"}], True, []),
        ([DAY, RUN], [DAY], False, []),
        ([DAY, RUN], [DAY], True, ["Removed budget each: it is not declared any more"]),
        ([DAY], [], True, ["Removed budget day: it is not declared any more"]),
        ([DAY], [{**DAY, "limit": 12, "mode": "soft"}], False, ["Declared budget day anew: limit was 10.00, not 12.00, mode was hard, not soft"]),
        ([DAY], [{**DAY, "zone": "Europe/Berlin"}], False, ["Declared budget day anew: zone was UTC, not Europe/Berlin"]),
    ],
)
def test_what_a_declaration_changes(before: list[dict[str, t.Any]], wanted: list[dict[str, t.Any]], exclusive: bool, said: list[str]) -> None:
    assert llm.changes(declared(*before), budgets.parse(wanted), exclusive) == said


@pytest.mark.parametrize(
    ("spent", "now", "window", "due"),
    [
        (0, NOON, {}, 0),
        (4_000_000, NOON, {}, 8_000_000),
        (1, MIDNIGHT + 28800, {}, 3),
        # Rounded up.
        (1, MIDNIGHT + 50000, {}, 2),
        # In the first tenth it is taken for a tenth.
        (1_000_000, MIDNIGHT + 1, {}, 10_000_000),
        (1_000_000, MIDNIGHT + 8640, {}, 10_000_000),
        # A clock that is behind, and one that is ahead.
        (1_000_000, MIDNIGHT - 5, {}, 10_000_000),
        (1_000_000, MIDNIGHT + 90000, {}, 1_000_000),
        (7, NOON, {"since": 0, "until": None}, 7),
    ],
)
def test_what_a_window_will_come_to(spent: int, now: int, window: dict[str, t.Any], due: int) -> None:
    assert llm.projected(row(spent=spent, **window), now) == due


@pytest.mark.parametrize(
    ("changes", "ahead", "said"),
    [
        ({"spent": 4_000_000}, True, ""),
        ({"spent": 5_000_000}, True, ""),
        ({"spent": 6_000_000}, True, "budget day of total: 6.00 spent, which makes 12.00 of 10.00 by 2027-01-16T00:00Z at this rate"),
        ({"spent": 6_000_000}, False, ""),
        ({"spent": 6_000_000, "since": 0, "until": None}, True, ""),
        ({"spent": 10_000_000}, False, "budget day of total: 10.00 spent of 10.00 by 2027-01-16T00:00Z"),
        ({"spent": 10_000_000, "mode": "soft"}, False, ""),
        ({"spent": 10_000_001, "mode": "soft"}, False, "budget day of total: 10.000001 spent of 10.00"),
        ({"spent": 6_000_000, "held": 4_000_000}, False, ""),
        ({"spent": 6_000_000, "held": 4_000_001}, False, "6.00 spent and 4.000001 held of 10.00"),
        ({"limit": 0}, False, "0.00 spent of 0.00"),
        ({"spent": 10_000_000, "until": None, "since": 0}, True, "10.00 spent of 10.00 for ever"),
    ],
)
def test_which_budgets_are_over(changes: dict[str, t.Any], ahead: bool, said: str) -> None:
    found = llm.over([row(**changes)], NOON, ahead)
    assert len(found) == bool(said) and said in "".join(found)


def test_the_table_has_the_dearest_first() -> None:
    runs = {"b": {"spent": 1, "held": 0, "calls": 1}, "a": {"spent": 2, "held": 5, "calls": 1}}
    spend = {"total": {"total": {"spent": 3, "held": 0, "calls": 2}}, "run": runs}
    lines = [line.split() for line in llm.table([row(spent=2_500_000)], spend, MIDNIGHT, NOON).splitlines()]
    assert lines[0] == ["Budget", "Of", "Mode", "Limit", "Spent", "Held", "Projected", "Ends"]
    assert lines[2] == ["day", "total", "hard", "10.00", "2.50", "0.00", "5.00", "2027-01-16T00:00Z"]
    assert [line[:2] for line in lines[-3:]] == [["total", "total"], ["run", "a"], ["run", "b"]]
    assert lines[-2][2:] == ["1", "0.000002", "0.000005"]
    assert llm.table([], {}, MIDNIGHT) == "Nothing was spent since 2027-01-15T00:00Z."


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("budget", {"budgets": [{"name": "x"}]}, "budgets[0].scope: None is not one of run, sandbox, team, model, host, total"),
        ("budget", {"budgets": [{**DAY, "limit": "much"}]}, "budgets[0].limit: 'much' is not an amount of dollars"),
        ("budget_check", {}, "llm/admin.sock: service llm does not answer (No such file or directory)"),
        ("budget_info", {"days": 0}, "days: 0 is not a number of days above 0"),
    ],
)
def test_modules_fail_in_one_line(tmp_path: pathlib.Path, name: str, arguments: dict[str, t.Any], said: str) -> None:
    done = modules.run(name, run=str(tmp_path), **arguments)
    assert done["failed"] and said in done["msg"] and "\n" not in done["msg"]


def test_check_mode_foresees_budgets_where_no_gateway_is_yet(tmp_path: pathlib.Path) -> None:
    done = modules.run("budget", check=True, run=str(tmp_path), budgets=[DAY, RUN], exclusive=True)
    assert done["changed"] and len(done["actions"]) == 2
    assert [budget["name"] for budget in done["budgets"]] == ["day", "each"]
    assert done["diff"]["before"] == "" and '"limit": "10.00"' in done["diff"]["after"]


# -- runs


def test_a_run_without_a_gateway_that_answers_does_not_begin(tmp_path: pathlib.Path) -> None:
    here = Places(str(tmp_path), str(tmp_path), str(tmp_path))
    begun = []
    reaches: stack.Description = {"mounts": [{"bind": "/x", "target": llm.FOLDER}]}
    with pytest.raises(recorder.RecorderError, match="service llm does not answer"), llm.counted(here, "box", reaches, "r", patience=0.1):
        begun.append("with")
    with llm.counted(here, "box", {"mounts": []}, "r"):
        begun.append("without")
    assert begun == ["without"]


# -- keys and tokens


def test_a_token_is_kept_and_no_two_are_alike() -> None:
    first = llm_access.tokens_of(["a", "b"], {})
    assert len(set(first.values())) == 2 and all(len(token) > 40 for token in first.values())
    again = llm_access.tokens_of(["b", "c"], first)
    assert again["b"] == first["b"] and set(again) == {"b", "c"} and again["c"] not in first.values()


def test_what_the_phase_adds_fits_what_others_say() -> None:
    mine = llm_access.part(AT, {"box": "sandbox-1"})
    env = {"sandboxes": {"box": {"environment": {"EDITOR": "vi"}, "mounts": [{"bind": "/p", "target": "/etc/passwd"}]}, "new": {}}}
    merged = stack.merge([env, mine])
    assert merged["box"]["mounts"][-1] == {"bind": "/run/d/llm/sandboxes/box", "target": "/run/guardrails/llm"}
    assert merged["box"]["environment"]["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:4000"
    assert merged["box"]["environment"]["OPENAI_API_KEY"] == merged["box"]["environment"]["ANTHROPIC_AUTH_TOKEN"] == "sandbox-1"
    assert merged["box"]["forwards"] == {"4000": "/run/guardrails/llm/llm.sock"}
    assert llm.reached(merged["box"]) and not llm.reached(merged["new"])


def test_a_preset_that_names_its_own_model_is_told_of() -> None:
    env = {"sandboxes": {"box": {"environment": {"OPENAI_BASE_URL": "http://127.0.0.1:4000/v1"}}}}
    with pytest.raises(ValueError, match="sandbox box: two phases set environment OPENAI_BASE_URL"):
        stack.merge([env, llm_access.part(AT, {"box": "sandbox-1"})])


@pytest.mark.parametrize(
    ("key", "content"),
    [("", None), ("sk-1", b"sk-1\n"), ("two words", "is not a key"), ("line\n", "is not a key"), ("ké", "is not a key"), ("k" * 4097, "is not a key")],
)
def test_a_key_is_one_line(key: str, content: bytes | str | None) -> None:
    if isinstance(content, str):
        with pytest.raises(llm_access.AccessError, match=f"openai_key: {content}"):
            llm_access.key_file(AT, "openai", key, 5)
        return
    made = llm_access.key_file(AT, "openai", key, 5)
    assert (str(made.path), made.content, made.mode, made.uid, made.gid) == ("/home/.state/keys/llm/openai.key", content, 0o640, 0, 5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"keys": {"google": "a-key-of-it"}}, "keys: google: there is anthropic, openai"),
        ({"keys": {"openai": "two words"}}, "openai_key: is not a key"),
        ({"teams": {"bax": "blue"}}, "teams: bax: is not a declared sandbox; there is box"),
        ({"removed": ["google"]}, "value of removed must be one or more of: anthropic, openai. Got no match for: google"),
    ],
)
def test_what_opens_nothing_is_refused(tmp_path: pathlib.Path, arguments: dict[str, t.Any], said: str) -> None:
    done = modules.run("llm_secrets", check=True, home=str(tmp_path / "home"), sandboxes=["box"], **arguments)
    assert done["failed"] and said in done["msg"] and not (tmp_path / "home").exists()


def test_check_mode_foresees_keys_and_tokens_and_tells_none(tmp_path: pathlib.Path) -> None:
    key = "sk-test-0123456789abcdef"
    done = modules.run("llm_secrets", check=True, home=str(tmp_path / "home"), sandboxes=["box"], keys={"openai": key}, teams={"box": "blue"})
    assert [pathlib.Path(path).name for path in done["written"]] == ["llm-tokens.json", "openai.key"]
    assert done["key_digests"] == {"anthropic": None, "openai": llm_access.digest(f"{key}\n")}
    assert done["callers"]["box"]["team"] == "blue" and len(done["callers"]["box"]["token_sha256"]) == 64
    assert key not in str({**done, "invocation": ""}) and not (tmp_path / "home").exists()


def test_tokens_that_were_tampered_with_are_not_taken(tmp_path: pathlib.Path) -> None:
    here = Places(str(tmp_path))
    assert llm_access.read_tokens(here) == {}
    wanted = llm_access.tokens_file(here, {"box": "sandbox-1"})
    wanted.path.parent.mkdir(parents=True)
    lock.write_locked(wanted.path, wanted.content or b"", wanted.mode)
    assert llm_access.read_tokens(here) == {"box": "sandbox-1"} and wanted.path.stat().st_mode & 0o777 == 0o600
    wanted.path.write_text("{}")
    with pytest.raises(lock.LockError, match=r"llm-tokens\.json: its sha256 is"):
        llm_access.read_tokens(here)

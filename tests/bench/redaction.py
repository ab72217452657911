# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Redaction beside detect-secrets and plain loops over the same rules, and what it finds in folders of documentation.

Run it as ``python tests/bench/redaction.py [--peer PYTHON] [--lines N] [FOLDER …]``, where PYTHON has detect-secrets, and
pyahocorasick if its search is to be compared too. Of each FOLDER some N lines are read (default 300,000), at most
1,000 of a file, files in a random but fixed order, eight lines to an event. It prints JSON lines; times are of the processor, and take turns.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

import yaml
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import redaction

CHECKOUT = Path(__file__).resolve().parents[2]
CONFIG: dict[str, t.Any] = yaml.safe_load((CHECKOUT / "configs" / "logging.yml").read_text(encoding="utf-8"))
EVENTS = 300
ROUNDS = 7
SEED = 20261124
WORDS = "the agent asked for a page of the handbook and was told that the rule for documentation allows it to read there".split()
# The peer reads events as JSON lines, and prints the seconds that each round over all of them took.
DETECT_SECRETS = """
import json, sys, time
from detect_secrets.core.scan import scan_line
from detect_secrets.settings import default_settings
lines = sys.stdin.read().splitlines()
with default_settings():
    for _round in range(3):
        start = time.process_time()
        for line in lines:
            list(scan_line(line))
        print(time.process_time() - start)
"""
AHO_CORASICK = """
import json, sys, time, ahocorasick
words, lines = json.loads(sys.stdin.readline()), [line.lower() for line in sys.stdin.read().splitlines()]
tree = ahocorasick.Automaton()
for word in words:
    tree.add_word(word, word)
tree.make_automaton()
for _round in range(3):
    start = time.process_time()
    for line in lines:
        {word for _end, word in tree.iter(line)}
    print(time.process_time() - start)
"""


def say(**figures: object) -> None:
    """Print one line of figures."""
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


def event(number: int, secret: str = "") -> dict[str, t.Any]:
    """Return an event of 1 KiB, another one for each *number*."""
    rng = random.Random(number)
    made = {
        "action": "process.exec",
        "class": "process_activity",
        "actor": {"type": "agent", "name": f"agent-{number % 7}"},
        "sandbox": f"box-{number % 8}",
        "resource": f"/workspace/src/module_{number}/Main.py",
        "argv": ["/usr/bin/python3", "-m", "pytest", "-q", f"tests/unit/case_{number}.py", "--maxfail=1", "-k", "not slow"],
        "request_sha256": f"{rng.getrandbits(256):064x}",
        "decision": "allow",
        "policy_ids": ["global.documentation", "box.reading"],
        "policy_sha256": "5e" * 32,
        "outcome": "success",
        "trace_id": f"20261124T111206Z-{number % 65536:04x}",
        "detail": {"bytes": rng.randrange(10**6), "duration_us": rng.randrange(10**6), "rule": "box.reading", "note": secret},
        "reason": "",
    }
    lacking = 1024 - len(json.dumps(made, separators=(",", ":")))
    made["reason"] = " ".join(WORDS[(number + place) % len(WORDS)] for place in range(lacking))[:lacking]
    return made


def strings(value: t.Any) -> list[str]:
    """Return the texts in *value*, names of fields too."""
    if isinstance(value, dict):
        return [text for item in value.items() for one in item for text in strings(one)]
    return [text for item in value for text in strings(item)] if isinstance(value, list) else [str(value)]


def timed(work: t.Callable[[], object]) -> float:
    """Return the seconds of processor time that *work* takes."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def loop(rules: t.Sequence[redaction.Rule], text: str, prefilter: bool) -> list[str]:
    """Return what a loop over all rules finds in *text*, as scanners of repositories do it: keywords one by one, if at all."""
    found = []
    low = text.lower()
    for rule in rules:
        if rule.pattern is not None and not (prefilter and rule.keywords and not any(word in low for word in rule.keywords)):
            found += [match[0] for match in rule.pattern.finditer(text) if rule.accepted(match[0])]
    return found


def speed(folder: Path, peer: str) -> None:
    """Print the time of an event, ours and the peers'."""
    made = redaction.Redactor.load(CONFIG, folder, trial=False)
    rules = redaction.rules_of(CONFIG, trial=False)
    clean = [event(number) for number in range(EVENTS)]
    dirty = [event(number, f"Authorization: Bearer abc.{number}-0123456789") for number in range(EVENTS)]
    lines = [json.dumps(one, separators=(",", ":")) for one in clean]
    assert not any(made(one)[1] for one in clean) and all(made(one)[1] for one in dirty)
    works: dict[str, t.Callable[[], object]] = {
        "clean": lambda: [made(one) for one in clean],
        "one_secret": lambda: [made(one) for one in dirty],
        "loop_with_keywords": lambda: [loop(rules, line, True) for line in lines],
        "loop_of_expressions": lambda: [loop(rules, line, False) for line in lines],
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _round in range(ROUNDS):
        for name, work in works.items():
            taken[name].append(timed(work) / EVENTS * 1e6)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    if peer:
        printed = subprocess.run([peer, "-c", DETECT_SECRETS], input="\n".join(lines), stdout=subprocess.PIPE, text=True, check=True).stdout
        medians["detect_secrets"] = statistics.median(map(float, printed.split())) / EVENTS * 1e6
    say(rules=len(rules), bytes=round(statistics.mean(map(len, lines))), us_an_event={name: round(value, 1) for name, value in medians.items()})
    say(ratio_to_clean={name: round(value / medians["clean"], 2) for name, value in medians.items() if name != "clean"})
    keywords([" ".join(strings(one)).lower() for one in clean], sorted({word for rule in rules for word in rule.keywords}), made, peer)


def keywords(lines: list[str], words: list[str], made: redaction.Redactor, peer: str) -> None:
    """Print the time of a search for all keywords in an event, in the ways there are."""
    plain, trie = re.compile("|".join(map(re.escape, words))), made._prefilter.search
    assert trie is not None
    works: dict[str, t.Callable[[], object]] = {
        "alternation": lambda: [plain.findall(line) for line in lines],
        "one_by_one": lambda: [[word for word in words if word in line] for line in lines],
        "trie": lambda: [trie(line) for line in lines],
        "trie_after_known_words": lambda: [made._prefilter.words(line) for line in lines],
    }
    taken = {name: min(timed(work) for _round in range(ROUNDS)) / EVENTS * 1e6 for name, work in works.items()}
    if peer and not subprocess.run([peer, "-c", "import ahocorasick"], stderr=subprocess.DEVNULL, check=False).returncode:
        given = json.dumps(words) + "\n" + "\n".join(lines)
        printed = subprocess.run([peer, "-c", AHO_CORASICK], input=given, stdout=subprocess.PIPE, text=True, check=True).stdout
        taken["aho_corasick"] = min(map(float, printed.split())) / EVENTS * 1e6
    say(keywords=len(words), us_a_search={name: round(value, 1) for name, value in taken.items()})


def texts(folder: Path) -> t.Iterator[list[str]]:
    """Yield the lines of the text files below *folder*, unpacked, in a random but fixed order."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink() and ".git" not in path.parts)
    random.Random(SEED).shuffle(paths)
    for path in paths:
        content = path.read_bytes()
        try:
            text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
        except (UnicodeDecodeError, OSError, EOFError):
            continue
        if "\0" not in text:
            yield text.splitlines()[:1000]


def rates(folder: Path, keys: Path, most: int) -> None:
    """Print how often each rule finds something in 1,000 lines of *folder*."""
    made = redaction.Redactor.load(CONFIG, keys, trial=False)
    counts: collections.Counter[str] = collections.Counter()
    lines = 0
    for text in texts(folder):
        for place in range(0, len(text), 8):
            counts.update(made({"detail": {"text": "\n".join(text[place : place + 8])}})[1])
        lines += len(text)
        if lines >= most:
            break
    personal = {rule.id for rule in made.rules if rule.group == "personal"}
    per = {name: round(count * 1000 / lines, 3) for name, count in counts.most_common()}
    secrets = sum(count for name, count in counts.items() if name not in personal)
    say(folder=folder.name, lines=lines, secrets_in_1000_lines=round(secrets * 1000 / lines, 3), by_rule=per)


def main() -> None:
    """Measure, print, clean up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", default="", metavar="PYTHON")
    parser.add_argument("--lines", type=int, default=300_000, metavar="N")
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-redaction-") as keys:
        speed(Path(keys), given.peer)
        for folder in given.folders:
            rates(folder, Path(keys), given.lines)


if __name__ == "__main__":
    main()

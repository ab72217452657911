# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures for Prometheus: those of OpenTelemetry's conventions for generative AI under their names, and what is spent."""

from __future__ import annotations

import contextlib
import os
import typing as t
from pathlib import Path

import prometheus_client as prometheus
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic

from dockersandbox.llm.prices import Usage

FILE = "llm.prom"
# More models than these are one: a name costs whoever asks for it nothing.
_MOST_MODELS = 200
_TOKENS = [4**power for power in range(14)]
_SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
_MODEL = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")


class Metrics:
    """All figures of the service; *folder* is where they are written, "" for nowhere."""

    def __init__(self, folder: str) -> None:
        self._path = Path(folder, FILE) if folder else None
        self._models: set[str] = set()
        self._children: dict[tuple[str, ...], tuple[t.Any, ...]] = {}
        self.registry = registry = prometheus.CollectorRegistry()
        t.cast("t.Any", prometheus).disable_created_metrics()
        self._usage = prometheus.Histogram(
            "gen_ai_client_token_usage", "Tokens of a call", [*_MODEL, "gen_ai_token_type"], registry=registry, buckets=_TOKENS
        )
        self._duration = prometheus.Histogram(
            "gen_ai_client_operation_duration_seconds", "How long a call took", [*_MODEL, "error_type"], registry=registry, buckets=_SECONDS
        )
        self._first = prometheus.Histogram(
            "gen_ai_client_operation_time_to_first_chunk_seconds", "How long a stream took to begin", _MODEL, registry=registry, buckets=_SECONDS
        )
        self._spent = prometheus.Counter(
            "dockersandbox_llm_spent_micro_dollars", "What was spent", ["sandbox", "team", "model"], registry=registry
        )
        self._run = prometheus.Gauge("dockersandbox_llm_run_spent_micro_dollars", "What the present run spent", ["sandbox", "run"], registry=registry)
        self._calls = prometheus.Counter("dockersandbox_llm_calls", "Calls that left", ["sandbox", "outcome"], registry=registry)
        self._refused = prometheus.Counter("dockersandbox_llm_refused", "Calls that did not", ["sandbox", "reason"], registry=registry)
        self._alarms = prometheus.Counter("dockersandbox_llm_alarms", "What somebody should look at", ["alarm"], registry=registry)
        self._active = prometheus.Gauge("dockersandbox_llm_active_calls", "Calls under way", ["sandbox"], registry=registry)
        self._breaker = prometheus.Gauge("dockersandbox_llm_breaker_open", "0: closed, 1: half-open, 2: open", ["kind", "name"], registry=registry)
        budget = ["budget", "subject", "window", "mode"]
        self._budget = {
            word: prometheus.Gauge(f"dockersandbox_llm_budget_{word}_micro_dollars", f"What is {word} of a budget", budget, registry=registry)
            for word in ("limit", "spent", "held")
        }

    def model(self, name: str) -> str:
        """Return the label for a model."""
        if name not in self._models:
            if len(self._models) >= _MOST_MODELS:
                return "other"
            self._models.add(name)
        return name

    def answered(
        self, sandbox: str, team: str, run: str, provider: str, model: str, usage: Usage, micro: int, seconds: float, first: float | None, error: str
    ) -> None:
        """Take note of a call that has ended; *error* is "" when it went well."""
        key = (sandbox, team, provider, self.model(model), error)
        if key not in self._children:
            self._children[key] = self._of(*key)
        into, out, duration, begin, spent, calls = self._children[key]
        into.observe(usage.total_input)
        out.observe(usage.output + usage.output_audio)
        duration.observe(seconds)
        if first is not None:
            begin().observe(first)
        spent.inc(micro)
        calls.inc()
        if run:
            self._run.labels(sandbox, run).inc(micro)

    def _of(self, sandbox: str, team: str, provider: str, model: str, error: str) -> tuple[t.Any, ...]:
        labels = ("chat", provider, model.removeprefix(f"{provider}/"))
        return (
            self._usage.labels(*labels, "input"),
            self._usage.labels(*labels, "output"),
            self._duration.labels(*labels, error),
            # What no stream began is not told.
            lambda: self._first.labels(*labels),
            self._spent.labels(sandbox, team, model),
            self._calls.labels(sandbox, error or "success"),
        )

    def failed(self, sandbox: str, outcome: str) -> None:
        """Take note of a call that left and cost nothing."""
        self._calls.labels(sandbox, outcome).inc()

    def refused(self, sandbox: str, reason: str) -> None:
        """Take note of a call that did not leave."""
        self._refused.labels(sandbox, reason).inc()

    def alarm(self, word: str) -> None:
        """Take note of an alarm."""
        self._alarms.labels(word).inc()

    def breaker(self, kind: str, name: str, state: str) -> None:
        """Take note of a breaker's state."""
        self._breaker.labels(kind, name).set({"closed": 0, "half-open": 1, "open": 2}[state])

    def run_ended(self, sandbox: str, run: str) -> None:
        """Forget a run."""
        if run:
            with contextlib.suppress(KeyError):
                self._run.remove(sandbox, run)

    def active(self, counts: t.Mapping[str, int]) -> None:
        """Say how many calls are under way."""
        for sandbox, count in counts.items():
            self._active.labels(sandbox).set(count)

    def standing(self, rows: t.Iterable[dict[str, t.Any]]) -> None:
        """Say where the budgets stand; of runs, only how they stand together is told elsewhere."""
        for gauge in self._budget.values():
            gauge.clear()
        for row in rows:
            if not row["subject"].startswith("run:"):
                for word, gauge in self._budget.items():
                    gauge.labels(row["name"], row["subject"], row["window"], row["mode"]).set(row[word])

    def write(self) -> None:
        """Write the file, whole. Raises OSError."""
        if self._path is not None:
            atomic.write(self._path, prometheus.generate_latest(self.registry), mode=0o644, temporary=f".{self._path.name}.{os.getpid()}")

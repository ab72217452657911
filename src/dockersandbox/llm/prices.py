# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a call costs, in whole micro-dollars, rounded up once a call.

Prices are those of the ``genai-prices`` package as it was installed (nothing is fetched), unless the operator has one of his
own. A model that neither knows costs the operator's ceiling, or cannot be called: nothing is free by being unknown.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import functools
import operator
import typing as t

from genai_prices import data_snapshot, types

# The keys of a price as genai-prices and the operator write them → how many the amount is for. Dollars.
KEYS = {
    "input_mtok": 10**6,
    "cache_read_mtok": 10**6,
    "cache_write_mtok": 10**6,
    "cache_write_1h_mtok": 10**6,
    "output_mtok": 10**6,
    "input_audio_mtok": 10**6,
    "output_audio_mtok": 10**6,
    "web_searches_kcount": 1000,
    "storage_searches_kcount": 1000,
    "code_executions_kcount": 1000,
    "requests_kcount": 1000,
}
# Keys that only some providers have, for a part of what another key is for: the dearer of the two is taken.
_PARTS = {
    "input_mtok": ("input_text_mtok", "input_image_mtok", "input_video_mtok"),
    "cache_read_mtok": ("cache_image_read_mtok",),
    "cache_write_mtok": ("cache_write_5m_mtok",),
    "output_mtok": ("output_text_mtok", "output_reasoning_mtok", "output_citation_mtok", "output_image_mtok", "output_video_mtok"),
}
# What is heard is charged as such, also when it comes from a cache.
_COVERED = frozenset({"cache_audio_read_mtok"})
# What a use of a provider's tool costs at the most where no price of it is published, in dollars for a thousand.
_UNPUBLISHED = {
    "web_searches_kcount": decimal.Decimal(25),
    "storage_searches_kcount": decimal.Decimal("2.5"),
    "code_executions_kcount": decimal.Decimal(50),
}
# What is asked for, or answered, that makes a call dearer; "flex" makes it cheaper. All else is the standard price.
DEARER = frozenset({"priority", "fast"})
TIERS = frozenset({*DEARER, "flex"})
STANDARD = ""
_PICO = 10**12
_MICRO = 10**6  # picos in a micro-dollar


class Unpriced(LookupError):
    """There is no price for a model; the text is one line that says what to do."""


class Usage(t.NamedTuple):
    """What a call used, each thing counted once: *input* is what neither comes from a cache nor goes into one."""

    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    output: int = 0
    input_audio: int = 0
    output_audio: int = 0
    web_searches: int = 0
    storage_searches: int = 0
    code_executions: int = 0
    requests: int = 1

    @property
    def total_input(self) -> int:
        """Every token that went in, by which a tier of prices is chosen."""
        return self.input + self.cache_read + self.cache_write + self.cache_write_1h + self.input_audio


class Rates(t.NamedTuple):
    """What one of each costs, in millionths of a micro-dollar; the fields are those of :class:`Usage`."""

    input: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    output: int
    input_audio: int
    output_audio: int
    web_searches: int
    storage_searches: int
    code_executions: int
    requests: int


@functools.lru_cache(maxsize=1024)
def _per_token(rates: Rates, kinds: tuple[str, ...]) -> tuple[int, int]:
    """Return the most that a token of *kinds* costs on its way in, and out."""
    known = {kind: getattr(rates, kind) for kind in kinds}
    coming_out = max(rate for kind, rate in known.items() if kind.startswith("output"))
    return max(rate for kind, rate in known.items() if not kind.startswith("output")), coming_out


INPUTS = ("input", "cache_read")
OUTPUTS = ("output",)
# How many tokens a model takes in that can be asked to take more than it does.
LONG = 1_000_000
# More tokens than anything puts out.
_ANY = 10**12


@dataclasses.dataclass(frozen=True)
class Price:
    """The price of *model* (``provider/name``). *tiers*: above how many tokens of input which rates hold, for all of the call.

    *context* is how many tokens the model takes in at the most (0: not known). *source* is ``genai-prices``, ``operator`` or
    ``ceiling``.
    """

    model: str
    source: str
    context: int
    tiers: tuple[tuple[int, Rates], ...]

    @property
    def longest(self) -> int:
        """How many tokens the model takes in when it is asked to take more: one that has a price for that does."""
        return LONG if 0 < self.context <= self.tiers[-1][0] else self.context

    def cost(self, usage: Usage, percent: int = 100) -> int:
        """Return the micro-dollars that *usage* costs, times *percent* of a hundred."""
        total = usage.total_input
        rates = self.tiers[0][1]
        for above, candidate in self.tiers[1:]:
            if total > above:
                rates = candidate
        return _up(sum(map(operator.mul, usage, rates)) * percent, 100 * _MICRO)

    def most(
        self,
        inputs: int,
        outputs: int,
        tools: t.Mapping[str, int],
        kinds: tuple[str, ...] = INPUTS + OUTPUTS,
        percent: int = 100,
    ) -> int:
        """Return the most micro-dollars that a call can cost.

        *inputs* and *outputs* are the most tokens, *tools* how often which tool may be used at the most, *kinds* the fields of
        :class:`Usage` that tokens may be charged as.
        """
        most = max(inputs * going_in + outputs * coming_out + once for going_in, coming_out, once in self._dearest(inputs, tools, kinds))
        return _up(most * percent, 100 * _MICRO)

    def outputs(self, micro: int, inputs: int, tools: t.Mapping[str, int], kinds: tuple[str, ...], percent: int = 100) -> int:
        """Return how many tokens may come out so that :meth:`most` is no more than *micro*; below 0 when not even none may."""
        least = _ANY
        for going_in, coming_out, once in self._dearest(inputs, tools, kinds):
            left = micro * 100 * _MICRO // percent - inputs * going_in - once
            least = min(least, left // coming_out if coming_out else (_ANY if left >= 0 else -1))
        return least

    def _dearest(self, inputs: int, tools: t.Mapping[str, int], kinds: tuple[str, ...]) -> t.Iterator[tuple[int, int, int]]:
        """Yield, for each tier that may come to hold, the most for a token in and for one out, and what is charged once."""
        for above, rates in self.tiers:
            if above and inputs <= above:
                break
            yield *_per_token(rates, kinds), sum(getattr(rates, tool) * count for tool, count in tools.items()) + rates.requests


def _up(amount: int, divisor: int) -> int:
    return -(-amount // divisor)


@dataclasses.dataclass(frozen=True)
class Override:
    """An operator's price: for the models of *provider* called *model* (lower case; with ``*`` at its end: that begin so)."""

    provider: str
    model: str
    tier: str
    price: Price

    def holds(self, provider: str, model: str) -> bool:
        """Whether it is for this model."""
        if provider != self.provider:
            return False
        return model.startswith(self.model[:-1]) if self.model.endswith("*") else model == self.model


class Prices:
    """All prices. *overrides* and *ceiling* are as ``configs/cost.yml`` has them; ValueError says what is wrong with them."""

    def __init__(self, overrides: t.Sequence[t.Mapping[str, t.Any]] = (), ceiling: t.Mapping[str, t.Any] | None = None) -> None:
        self._overrides = [_override(item, f"prices[{index}]") for index, item in enumerate(overrides)]
        # The longest name is the one that was meant.
        self._overrides.sort(key=lambda item: (item.model.endswith("*"), -len(item.model)))
        self._ceiling = _tiers(ceiling, "ceiling") if ceiling else None
        self._context = int((ceiling or {}).get("context", 0))
        self._known: dict[tuple[str, str, str, int], Price] = {}

    def find(self, provider: str, model: str, at: int, tier: str = STANDARD) -> Price:
        """Return the price of *model* at that time (seconds since 1970 UTC). Raises Unpriced.

        *tier* is what makes it another than the standard price; one that would make it cheaper, and has no price, does not.
        """
        name = model.lower()
        tier = tier if tier in TIERS else STANDARD
        # The only prices that depend on the time do so by the minute.
        key = (provider, name, tier, at // 60)
        found = self._known.get(key)
        if found is None:
            found = self._look_up(provider, name, at, tier)
            if len(self._known) >= 1024:
                self._known.clear()
            self._known[key] = found
        return found

    def knows(self, provider: str) -> bool:
        """Whether *provider* has a price of any model."""
        return provider in {item.provider for item in self._overrides} or any(known.id == provider for known in data_snapshot.get_snapshot().providers)

    def _look_up(self, provider: str, name: str, at: int, tier: str) -> Price:
        overrides = [item for item in self._overrides if item.holds(provider, name)]
        for candidate in [tier] if tier in DEARER else dict.fromkeys([tier, STANDARD]):
            for item in overrides:
                if item.tier == candidate:
                    return dataclasses.replace(item.price, model=called(provider, name))
            if not overrides and (price := _published(provider, name, at, candidate)) is not None:
                return price
        if self._ceiling is not None:
            return Price(called(provider, name), "ceiling", self._context, self._ceiling)
        dearer = f" as {tier}" if tier else ""
        raise Unpriced(f"{name}: has no price{dearer}, and no ceiling is set; add it to cost_prices for provider {provider}, or set cost_ceiling")


def load() -> None:
    """Have the published prices ready, which takes a moment."""
    data_snapshot.get_snapshot()


def called(provider: str, name: str) -> str:
    """Return what the model *name* (lower case) is called here, whichever of its names that is: ``provider/name``."""
    model = _model(provider, name)
    return f"{provider}/{model.id if model is not None else name}"


def _model(provider: str, name: str) -> types.ModelInfo | None:
    try:
        return data_snapshot.get_snapshot().find_provider_model(name, None, provider, None)[1]
    except LookupError:
        return None


def _published(provider: str, name: str, at: int, tier: str) -> Price | None:
    """Return the price that genai-prices has; None when it has none for both directions."""
    model = _model(provider, name)
    if model is None:
        return None
    when = datetime.datetime.fromtimestamp(at, datetime.UTC)
    prices = model.get_prices(when)
    if tier:
        dearer = next((dearer for key in ("service_tier", "speed") if (dearer := model.get_prices(when, {key: tier})) != prices), None)
        if dearer is None:
            return None
        prices = dearer
    raw = {key: value for key, value in prices.__dict__.items() if value is not None and not key.startswith("_")}
    for key, parts in _PARTS.items():
        for part in parts:
            if part in raw and (key not in raw or _base(raw[part]) > _base(raw[key])):
                raw[key] = raw[part]
    # What is charged by hours, say, is more than its tokens.
    known = {*KEYS, *_COVERED, *(part for parts in _PARTS.values() for part in parts)}
    if "input_mtok" not in raw or "output_mtok" not in raw or not raw.keys() <= known:
        return None
    starts = sorted({0, *(tier.start for value in raw.values() if isinstance(value, types.TieredPrices) for tier in value.tiers)})
    tiers = tuple((start, _rates({key: _at(value, start) for key, value in raw.items() if key in KEYS})) for start in starts)
    return Price(f"{provider}/{model.id}", "genai-prices", model.context_window or 0, tiers)


def _base(value: t.Any) -> decimal.Decimal:
    return value.base if isinstance(value, types.TieredPrices) else value


def _at(value: t.Any, start: int) -> decimal.Decimal:
    if not isinstance(value, types.TieredPrices):
        return decimal.Decimal(value)
    found = value.base
    for tier in value.tiers:
        if tier.start <= start and start:
            found = tier.price
    return found


def _rates(amounts: t.Mapping[str, decimal.Decimal]) -> Rates:
    """Return the rates of a price whose keys are those of :data:`KEYS`; what has no price of its own costs what it is a part of."""
    known = {**_UNPUBLISHED, **amounts}
    rate = {key: int((known[key] * _PICO / per).to_integral_value(decimal.ROUND_CEILING)) for key, per in KEYS.items() if key in known}
    going_in = rate["input_mtok"]
    write = rate.get("cache_write_mtok", going_in)
    return Rates(
        input=going_in,
        cache_read=rate.get("cache_read_mtok", going_in),
        cache_write=write,
        # Where it has a price, it is twice that of input.
        cache_write_1h=rate.get("cache_write_1h_mtok", max(write, 2 * going_in)),
        output=rate["output_mtok"],
        input_audio=rate.get("input_audio_mtok", going_in),
        output_audio=rate.get("output_audio_mtok", rate["output_mtok"]),
        web_searches=rate["web_searches_kcount"],
        storage_searches=rate["storage_searches_kcount"],
        code_executions=rate["code_executions_kcount"],
        requests=rate.get("requests_kcount", 0),
    )


def _override(item: t.Mapping[str, t.Any], where: str) -> Override:
    for key in ("provider", "model"):
        if not isinstance(item.get(key), str) or not item[key]:
            raise ValueError(f"{where}.{key}: is missing")
    model = item["model"].lower()
    if "*" in model[:-1]:
        raise ValueError(f"{where}.model: {item['model']!r} has * elsewhere than at its end")
    tier = item.get("tier", STANDARD)
    if tier not in (*TIERS, STANDARD):
        raise ValueError(f"{where}.tier: {tier!r} is not one of {', '.join(sorted(TIERS))}")
    rest = {key: value for key, value in item.items() if key not in ("provider", "model", "tier")}
    price = Price(f"{item['provider']}/{model}", "operator", int(item.get("context", 0)), _tiers(rest, where))
    return Override(item["provider"], model, tier, price)


def _tiers(item: t.Mapping[str, t.Any], where: str) -> tuple[tuple[int, Rates], ...]:
    base = _amounts(item, where, ("context", "tiers"))
    for key in ("input_mtok", "output_mtok"):
        if key not in base:
            raise ValueError(f"{where}.{key}: is missing: the dollars for a million tokens")
    found = [(0, _rates(base))]
    for index, tier in enumerate(item.get("tiers", ())):
        above = tier.get("above")
        if not isinstance(above, int) or isinstance(above, bool) or above <= found[-1][0]:
            raise ValueError(f"{where}.tiers[{index}].above: {above!r} is not a number of tokens above {found[-1][0]}")
        base |= _amounts(tier, f"{where}.tiers[{index}]", ("above",))
        found.append((above, _rates(base)))
    return tuple(found)


def _amounts(item: t.Mapping[str, t.Any], where: str, others: t.Collection[str]) -> dict[str, decimal.Decimal]:
    found = {}
    for key, value in item.items():
        if key in others:
            continue
        if key not in KEYS:
            raise ValueError(f"{where}.{key}: is not known; there is {', '.join(KEYS)}")
        try:
            amount = decimal.Decimal(str(value))
        except decimal.InvalidOperation:
            amount = decimal.Decimal(-1)
        if isinstance(value, bool) or not amount.is_finite() or not 0 <= amount <= 10**6:
            raise ValueError(f"{where}.{key}: {value!r} is not an amount of dollars from 0 to 1000000")
        found[key] = amount
    return found

# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prices: examples worked out by hand for each provider and tier, and what has no price."""

from __future__ import annotations

import math
import random
import typing as t

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot

from dockersandbox.llm.prices import INPUTS, OUTPUTS, Prices, Unpriced, Usage

NOW = 1_795_521_600  # 2026-11-24
ALL = INPUTS + OUTPUTS


@pytest.mark.parametrize(
    ("provider", "model", "tier", "usage", "micro"),
    [
        # $3 in, $15 out: 1000 * 3 + 500 * 15
        ("anthropic", "claude-sonnet-4-0", "", Usage(input=1000, output=500), 10_500),
        # one token costs what it costs, rounded up: $0.30 a million is a third of a micro-dollar
        ("anthropic", "claude-sonnet-4-0", "", Usage(cache_read=1), 1),
        # $0.30 read, $3.75 kept for five minutes, $6 for an hour: 10 * 3 + 1000 * 0.3 + 2000 * 3.75 + 4000 * 6 + 100 * 15
        ("anthropic", "claude-sonnet-4-0", "", Usage(10, 1000, 2000, 4000, 100), 33_330),
        # up to 200,000 tokens in $3 and $15, above it $6 and $22.50, for all of the call
        ("anthropic", "claude-sonnet-4-5", "", Usage(input=200_000, output=1000), 615_000),
        ("anthropic", "claude-sonnet-4-5", "", Usage(input=200_001, output=1000), 1_222_506),
        # what is read from a cache counts towards the tier: 1 * 6 + 250,000 * 0.6 + 10 * 22.5
        ("anthropic", "claude-sonnet-4-5", "", Usage(input=1, cache_read=250_000, output=10), 150_231),
        # ten searches at $10 for a thousand
        ("anthropic", "claude-sonnet-4-5", "", Usage(web_searches=10), 100_000),
        # an alias with a date, and upper case
        ("anthropic", "Claude-Sonnet-4-5-20250929", "", Usage(input=1000, output=500), 10_500),
        # $4 and $20, and fast for twice as much
        ("anthropic", "claude-opus-5-5", "", Usage(input=1000, cache_read=100, output=100), 6_020),
        ("anthropic", "claude-opus-5-5", "fast", Usage(input=1000, cache_read=100, output=100), 12_040),
        # $0.15 in, $0.075 from the cache, $0.60 out: 1000 * 0.15 + 1000 * 0.075 + 500 * 0.6
        ("openai", "gpt-4o-mini", "", Usage(input=1000, cache_read=1000, output=500), 525),
        # $2 in, $0.20 from the cache, $2.50 into it, $10 out: 100 * 2 + 1000 * 0.2 + 200 * 2.5 + 10 * 10
        ("openai", "gpt-6-sol", "", Usage(input=100, cache_read=1000, cache_write=200, output=10), 1_000),
        ("openai", "gpt-6-sol", "flex", Usage(input=100, cache_read=1000, cache_write=200, output=10), 500),
        ("openai", "gpt-4o-mini", "flex", Usage(input=1000, cache_read=1000, output=500), 525),
        ("openai", "gpt-6-sol", "priority", Usage(input=100, cache_read=1000, cache_write=200, output=10), 2_000),
        # above 272,000 tokens in $4 and $15
        ("openai", "gpt-6-sol", "", Usage(input=272_001, output=10), 1_088_154),
        # sound costs $32 and $64 a million, text $2.50 and $10
        ("openai", "gpt-audio", "", Usage(input=100, output=10, input_audio=100, output_audio=10), 4_190),
        # $0.30 in, and out text for $2.50 or a picture for $30, which a usage does not tell apart: 1000 * 0.3 + 1290 * 30
        ("google", "gemini-2.5-flash-image", "", Usage(input=1000, output=1290), 39_000),
        # $0.30 in, $0.03 from the cache, $1 for sound
        ("google", "gemini-2.5-flash", "", Usage(input=1000, cache_read=1000, input_audio=1000), 1_330),
    ],
)
def test_by_hand(provider: str, model: str, tier: str, usage: Usage, micro: int) -> None:
    assert Prices().find(provider, model, NOW, tier).cost(usage) == micro


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_as_the_package_itself_counts(provider: str) -> None:
    prices, dice, compared = Prices(), random.Random(6), 0
    for model in next(item for item in get_snapshot().providers if item.id == provider).models:
        try:
            price = prices.find(provider, model.id, NOW)
        except Unpriced:
            continue
        if "image" in str(model.prices):
            # Text and pictures are not told apart: the dearer of the two is taken for both.
            continue
        for _turn in range(20):
            inputs, read, write, hour, output = (dice.choice([0, dice.randrange(10**5), dice.randrange(10**6)]) for _kind in range(5))
            hour = hour if provider == "anthropic" and "cache_write_1h" in str(model.prices) else 0
            usage = genai_prices.Usage(
                input_tokens=inputs + read + write + hour,
                cache_read_tokens=read,
                cache_write_tokens=write + hour,
                cache_write_5m_tokens=write,
                cache_write_1h_tokens=hour,
                output_tokens=output,
            )
            theirs = genai_prices.calc_price(usage, model.id, provider_id=provider).total_price
            assert price.cost(Usage(inputs, read, write, hour, output)) == math.ceil(theirs * 10**6), model.id
            compared += 1
    assert compared > 200


def test_an_operator_has_the_last_word() -> None:
    prices = Prices(
        [
            {"provider": "anthropic", "model": "claude-*", "input_mtok": 1, "output_mtok": 2},
            {"provider": "anthropic", "model": "claude-sonnet-4-5", "input_mtok": 10, "output_mtok": "20.5", "context": 1000},
            {"provider": "anthropic", "model": "claude-sonnet-4-5", "tier": "fast", "input_mtok": 30, "output_mtok": 40},
            {
                "provider": "local",
                "model": "Qwen/*",
                "input_mtok": 0,
                "output_mtok": 1,
                "tiers": [{"above": 100, "output_mtok": 3}, {"above": 1000, "input_mtok": 5}],
            },
        ]
    )
    assert prices.find("anthropic", "claude-sonnet-4-5", NOW).cost(Usage(input=10, output=10)) == 305
    assert prices.find("anthropic", "claude-sonnet-4-5", NOW, "fast").cost(Usage(input=10, output=10)) == 700
    wide = prices.find("anthropic", "claude-opus-9", NOW)
    assert (wide.model, wide.source, wide.cost(Usage(input=10, output=10))) == ("anthropic/claude-opus-9", "operator", 30)
    local = prices.find("local", "qwen/Qwen3-30B", NOW)
    assert [local.cost(Usage(input=count, output=10)) for count in (100, 101, 1001)] == [10, 30, 5035]
    # What has no price of its own costs what it is a part of, and an hour in a cache twice that.
    assert wide.cost(Usage(cache_read=10, cache_write=10, cache_write_1h=10, input_audio=10, output_audio=10)) == 10 + 10 + 20 + 10 + 20
    # A dearer tier is not served at the operator's standard price.
    with pytest.raises(Unpriced, match="claude-opus-9: has no price as fast"):
        prices.find("anthropic", "claude-opus-9", NOW, "fast")


@pytest.mark.parametrize(
    ("provider", "model", "tier"),
    [
        ("anthropic", "gpt-6-sol", ""),
        ("openai", "no-such-model", ""),
        ("openai", "whisper-1", ""),
        ("openai", "moderation", ""),
        ("openai", "text-embedding-3-small", ""),
        ("anthropic", "claude-haiku-4-5", "fast"),
        # Sound by the hour is not among its tokens.
        ("mistral", "voxtral-small-24b-2507", ""),
        ("nobody", "claude-sonnet-4-5", ""),
        ("openai", "", ""),
    ],
)
def test_what_has_no_price_is_refused_or_costs_the_ceiling(provider: str, model: str, tier: str) -> None:
    with pytest.raises(Unpriced, match="has no price"):
        Prices().find(provider, model, NOW, tier)
    found = Prices([], {"input_mtok": 100, "output_mtok": 500, "context": 9}).find(provider, model, NOW, tier)
    assert (found.source, found.context, found.cost(Usage(input=1, output=1))) == ("ceiling", 9, 600)


@pytest.mark.parametrize("name", ["claude-sonnet-4-5", "claude-sonnet-4-5-20250929", "Claude-Sonnet-4-5"])
@pytest.mark.parametrize("model", ["*", "claude-sonnet-*", "claude-sonnet-4-5-20250929"])
def test_a_model_is_called_the_same_by_whichever_of_its_names(model: str, name: str) -> None:
    own = [{"provider": "anthropic", "model": model, "input_mtok": 7, "output_mtok": 7}]
    assert Prices(own, {"input_mtok": 9, "output_mtok": 9}).find("anthropic", name, NOW).model == "anthropic/claude-sonnet-4-5"


@pytest.mark.parametrize(
    ("model", "context"), [("claude-sonnet-4-0", 200_000), ("claude-opus-5-5", 1_000_000), ("claude-sonnet-4-5", 1_000_000)]
)
def test_a_model_takes_as_much_as_it_has_a_price_for_when_it_is_asked_to(model: str, context: int) -> None:
    price = Prices().find("anthropic", model, NOW)
    assert (price.longest, price.context) == (context, 200_000 if "sonnet" in model else context)


def test_which_providers_have_prices() -> None:
    prices = Prices([{"provider": "mine", "model": "*", "input_mtok": 1, "output_mtok": 1}])
    assert [prices.knows(name) for name in ("mine", "openrouter", "claude-sonnet-4-5", "")] == [True, True, False, False]


def test_a_price_of_nothing_is_one_that_somebody_has_set() -> None:
    free = Prices([{"provider": "local", "model": "*", "input_mtok": 0, "output_mtok": 0}]).find("local", "x", NOW)
    assert free.cost(Usage(input=10**6, output=10**6)) == 0
    assert free.most(10**6, 10**6, {}) == 0
    assert free.outputs(0, 10**6, {}, ALL) >= 10**6


@pytest.mark.parametrize("model", ["claude-sonnet-4-0", "claude-sonnet-4-5", "claude-haiku-5-5"])
def test_nothing_costs_more_than_the_most(model: str) -> None:
    price, dice = Prices().find("anthropic", model, NOW), random.Random(7)
    for _turn in range(300):
        inputs, outputs = dice.randrange(1, 400_000), dice.randrange(1, 64_000)
        cuts = sorted(dice.randrange(inputs + 1) for _cut in range(3))
        used = Usage(cuts[0], cuts[1] - cuts[0], cuts[2] - cuts[1], inputs - cuts[2], dice.randrange(outputs + 1), web_searches=dice.randrange(4))
        kinds = (*ALL, "cache_write", "cache_write_1h")
        most = price.most(inputs, outputs, {"web_searches": 3}, kinds)
        assert price.cost(used) <= most
        # Room for outputs is room for as many, and not for one more.
        room = price.outputs(most, inputs, {"web_searches": 3}, kinds)
        assert price.most(inputs, room, {"web_searches": 3}, kinds) <= most < price.most(inputs, room + 1, {"web_searches": 3}, kinds)
        assert room >= outputs


def test_a_percentage_on_top() -> None:
    price = Prices().find("anthropic", "claude-sonnet-4-0", NOW)
    assert price.cost(Usage(input=1000), 110) == 3300
    assert price.most(1000, 0, {}, ALL, 110) == 3300
    assert price.outputs(3300 + 1650, 1000, {}, ALL, 110) == 100


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ({"model": "x"}, "prices[0].provider: is missing"),
        ({"provider": "p", "model": "a*b", "input_mtok": 1, "output_mtok": 1}, "prices[0].model: 'a*b' has * elsewhere"),
        ({"provider": "p", "model": "x", "input_mtok": 1}, "prices[0].output_mtok: is missing"),
        ({"provider": "p", "model": "x", "input_mtok": -1, "output_mtok": 1}, "prices[0].input_mtok: -1 is not an amount"),
        ({"provider": "p", "model": "x", "input_mtok": "nan", "output_mtok": 1}, "prices[0].input_mtok: 'nan' is not an amount"),
        ({"provider": "p", "model": "x", "input_mtok": True, "output_mtok": 1}, "prices[0].input_mtok: True is not an amount"),
        ({"provider": "p", "model": "x", "input_mtok": 1, "output_mtok": 1, "tier": "slow"}, "prices[0].tier: 'slow' is not one of"),
        ({"provider": "p", "model": "x", "input_mtok": 1, "output_mtok": 1, "colour": 1}, "prices[0].colour: is not known"),
        ({"provider": "p", "model": "x", "input_mtok": 1, "output_mtok": 1, "tiers": [{"above": 0}]}, "prices[0].tiers[0].above: 0 is not"),
    ],
)
def test_wrong(item: dict[str, t.Any], problem: str) -> None:
    with pytest.raises(ValueError) as raised:
        Prices([item])
    assert str(raised.value).startswith(problem)

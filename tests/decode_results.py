"""Decoding results without decoding: made-up figures that differ from set to set, budget to budget and temperature to temperature."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hoarfrost.evaluation.common.journal import Outcome, make_result
from hoarfrost.evaluation.common.machine import describe_machine
from hoarfrost.evaluation.decode.records import DecodeRecord, summarise

NUM_TOKENS = 121
TAUS = {
    ("ar", 0): 1.0,
    ("chain", 7): 2.0,
    ("tree", 8): 2.4,
    ("tree", 16): 3.0,
    ("tree", 32): 3.75,
    ("tree", "auto"): 3.0,
    ("tree-uncoupled", 16): 2.5,
}
MS_PER_ROUND = {
    ("ar", 0): 2.0,
    ("chain", 7): 2.5,
    ("tree", 8): 2.6,
    ("tree", 16): 2.8,
    ("tree", 32): 4.0,
    ("tree", "auto"): 2.7,
    ("tree-uncoupled", 16): 2.8,
}
VARIANTS = tuple(variant for variant in TAUS if variant[0] != "tree-uncoupled")
SETS = ("gsm8k", "mt_bench")


def make_record(set_name: str, prompt_id: str, mode: str, budget: int | str, temperature: float, slowness: float = 1.0) -> DecodeRecord:
    """`slowness` multiplies the time of a round; rounds of floor and ceiling of tau alternate in the histogram."""
    tau, ms_per_round = TAUS[mode, budget], slowness * MS_PER_ROUND[mode, budget]
    num_rounds = round((NUM_TOKENS - 1) / tau)
    num_long = NUM_TOKENS - 1 - num_rounds * int(tau)
    histogram = [0] * int(tau) + [num_rounds - num_long, num_long]
    seconds = num_rounds * ms_per_round / 1000
    return DecodeRecord(
        set=set_name,
        prompt_id=prompt_id,
        mode=mode,
        budget=budget,
        temperature=temperature,
        tokens=NUM_TOKENS,
        seconds=seconds,
        rounds=num_rounds,
        tau=tau,
        stage_ms={"draft": 0.2 * ms_per_round, "verify": 0.8 * ms_per_round},
        tokens_per_second=(NUM_TOKENS - 1) / seconds,
        ms_per_round=ms_per_round,
        prompt_tokens=50,
        prefill_seconds=0.01,
        finish_reason="length",
        accepted_histogram=histogram,
        agrees=True,
        first_difference=None,
    )


def make_decode_result(
    temperatures: Sequence[float] = (0.0, 1.0), variants: Sequence[tuple[str, int | str]] = VARIANTS, sets: Sequence[str] = SETS
) -> dict[str, Any]:
    """A result as it comes out of its file. On the second set the largest budget costs twice as much, so that another one is best."""
    outcomes = [
        Outcome(
            set_name,
            str(prompt),
            [
                make_record(set_name, str(prompt), mode, budget, temperature, 2.0 if budget == 32 and set_name == sets[-1] else 1.0)
                for temperature in temperatures
                for mode, budget in variants
            ],
        )
        for set_name in sets
        for prompt in range(3)
    ]
    settings = {
        "model": "tiny",
        "drafter": "shipped",
        "dtype": "float32",
        "device": "cpu",
        "num_threads": 1,
        "num_prompts": dict.fromkeys(sets, 3),
        "max_new_tokens": 256,
        "stop_on_repetition": True,
        "left_out": "prefill",
    }
    header = {"machine": describe_machine(), "versions": {}, "commit": "abc", "command": [], "settings": settings}
    result: dict[str, Any] = json.loads(json.dumps(make_result(header, outcomes, summarise)))
    return result


def reliability() -> list[dict[str, Any]]:
    return [
        {
            "calibrated": calibrated,
            "depth": depth,
            "spine": spine,
            "expected": expected,
            "observed": (1.0 if calibrated else 0.8) * expected,
            "count": 100 * depth,
        }
        for calibrated in (False, True)
        for depth in (1, 2)
        for spine in (True, False)
        for expected in (0.2, 0.8)
    ]

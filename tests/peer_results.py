"""A comparison with peers without any: two made-up engines beside Hoarfrost, a third that could not be installed."""

from __future__ import annotations

import json
from typing import Any

from hoarfrost.evaluation.common.journal import Outcome, make_result
from hoarfrost.evaluation.common.machine import describe_machine
from hoarfrost.evaluation.decode.peers import PeerRecord, summarise_peers

SECONDS_PER_TOKEN = {"hoarfrost-ar": 0.004, "hoarfrost-tree": 0.001, "fast": 0.002}
LABELS = {"hoarfrost-ar": "Hoarfrost AR", "hoarfrost-tree": "Hoarfrost DDTree", "fast": "Fast engine"}


def make_record(set_name: str, prompt_id: str, peer: str, *, tokens: int = 101, agrees: bool = True) -> PeerRecord:
    seconds = (tokens - 1) * SECONDS_PER_TOKEN[peer] * (2 if set_name == "mt_bench" else 1)
    return PeerRecord(set_name, prompt_id, peer, tokens, 1, seconds, 0.1, agrees, None if agrees else 7)


def make_peers() -> dict[str, Any]:
    outcomes = [
        Outcome(name, str(index), [make_record(name, str(index), peer, agrees=peer != "fast" or index > 0) for peer in LABELS])
        for name in ("gsm8k", "mt_bench")
        for index in range(3)
    ]
    header = {
        "machine": describe_machine(),
        "commit": None,
        "settings": {
            "model": "tiny",
            "max_new_tokens": 256,
            "num_threads": 2,
            "num_prompts": {"gsm8k": 3, "mt_bench": 3},
            "left_out": "prefill",
        },
        "peers": {peer: {"label": label, "dtype": "float32", "versions": {}} for peer, label in LABELS.items()},
    }
    result: dict[str, Any] = json.loads(
        json.dumps(make_result({**header, "failures": {"slow": "not installed"}}, outcomes, summarise_peers))
    )
    return result

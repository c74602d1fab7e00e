"""Holds this project's DFlash 2 drafter to the official implementation, PyPI `dflash` 0.1.0: the same checkpoint, the same numbers.

The package pins other versions of what it imports, so put it, without its requirements, into a folder of its own and point Python there:

    .venv/bin/pip install --no-deps --target build/peers/dflash dflash==0.1.0
    PYTHONPATH=build/peers/dflash .venv/bin/python benchmarks/peers/dflash2_parity.py --json benchmarks/results/dflash2-parity.json

For each case a checkpoint with random float32 weights is written in the released layout and loaded by both sides. Then come rounds as in
decoding: some committed rows are taken in, a block is drafted, its rows are dropped from the cache. Compared are

    logits         of all slots, decoding path (the cached and fused network)
    scores         S_t(a -> b) of all candidates along sampled paths, training path (`block_hidden`, `transition_scores`)
    probabilities  of the same, decoding path: the log of the official q(b | a) against `Transitions`, renormalised over the candidates
    greedy path    token by token, decoding path

The official selector is asked through its own `select`, whose inner scores are read where it hands them to its sampler. It does not
exclude the mask token; the head used here gives it a logit that nobody chooses, as trained models do.

Differences count relative to the largest value compared, or to 1 if that is larger. Beside them stands how far this project's own float32
logits are from its float64 ones: what rounding alone does. Exit code 1 where a difference exceeds 1e-5, or a path differs.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from hoarfrost.drafting import DFlashConfig, DFlashDrafter, DFlashModel, load_drafter, save_drafter
from hoarfrost.drafting.config import FULL, SLIDING
from hoarfrost.drafting.selector import transition_scores
from hoarfrost.evaluation.common.machine import describe_run, package_version
from hoarfrost.files import write_json
from hoarfrost.tree import Conditionals, Marginals, Transitions, top_of

OFFICIAL_VERSION = "0.1.0"
BOUND = 1e-5
NUM_WALKS = 8
NUM_TARGET_LAYERS = 12

SMALL = DFlashConfig(
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    vocab_size=211,
    mask_token_id=200,
    target_layer_ids=(1, 5, 9),
    num_target_layers=NUM_TARGET_LAYERS,
    block_size=8,
    max_position_embeddings=1024,
    layer_types=(SLIDING,) * 3,
    sliding_window=16,
    is_causal=False,
    conv_kernel_size=2,
    conv_group_size=16,
    selector_rank=32,
    selector_top_k=16,
)
LARGER = replace(
    SMALL,
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=5,
    num_attention_heads=8,
    head_dim=64,
    vocab_size=4099,
    mask_token_id=4090,
    target_layer_ids=(1, 3, 5, 7, 9),
    layer_types=(SLIDING,) * 5,
    sliding_window=128,
    selector_rank=256,
)
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 256}
CASES: dict[str, tuple[DFlashConfig, tuple[int, ...]]] = {
    "as released, short context": (SMALL, (5, 1, 3)),
    "as released, context past the window": (SMALL, (50, 2, 8, 1, 30)),
    "window narrower than the block": (replace(SMALL, sliding_window=5), (20, 1, 8)),
    "full attention": (replace(SMALL, layer_types=(FULL,) * 3, sliding_window=None), (40, 4, 2)),
    "causal sliding and full layers": (replace(SMALL, layer_types=(SLIDING, SLIDING, FULL), is_causal=None), (40, 4, 2)),
    "blocks of 16, three taps, groups of 8": (replace(SMALL, block_size=16, conv_kernel_size=3, conv_group_size=8), (33, 7)),
    "scaled and softcapped": (replace(SMALL, input_embedding_scale=4.0, output_multiplier=0.5, final_logit_softcapping=3.0), (25, 3)),
    "yarn": (replace(SMALL, rope_parameters=YARN), (40, 3)),
    "five wide layers, long context": (LARGER, (300, 1, 5, 8)),
}


@dataclass
class Borrowed:
    """Stands in for a target: an embedding, and a head that never says the mask token."""

    config: DFlashConfig
    weights: str = "float"
    name: str = "random target"
    num_layers: int = NUM_TARGET_LAYERS
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        self.hidden_size, self.vocab_size = self.config.hidden_size, self.config.vocab_size
        self.embed = nn.Embedding(self.vocab_size, self.hidden_size)
        self.head: nn.Module = nn.Linear(self.hidden_size, self.vocab_size)
        with torch.no_grad():
            self.head.get_parameter("bias").zero_()[self.config.mask_token_id] = -1e4
            self.head.get_parameter("weight").normal_(std=2 * self.hidden_size**-0.5)


@dataclass
class Differences:
    """The largest absolute differences of one case, and how large the compared values are; `rounding`: own logits, float32 and float64."""

    logits: float = 0.0
    scores: float = 0.0
    log_probabilities: float = 0.0
    rounding: float = 0.0
    largest_logit: float = 0.0
    largest_score: float = 0.0
    num_slots: int = 0
    num_transitions: int = 0
    same_greedy_paths: bool = True

    def raise_to(self, **values: float) -> None:
        for name, value in values.items():
            setattr(self, name, max(getattr(self, name), value))

    def relative(self) -> tuple[float, float, float]:
        """Of logits, scores and log-probabilities."""
        largest_score = max(1.0, self.largest_score)
        return self.logits / max(1.0, self.largest_logit), self.scores / largest_score, self.log_probabilities / largest_score

    @property
    def holds(self) -> bool:
        return max(self.relative()) <= BOUND and self.same_greedy_paths


def random_model(config: DFlashConfig) -> DFlashModel:
    """Weights of the sizes that training gives, every part with an effect."""
    model = DFlashModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.normal_(mean=1.0, std=0.1)
            elif "codebook" in name:
                parameter.normal_(std=parameter.shape[1] ** -0.25)
            elif "base_kernel" in name:
                parameter.normal_(std=0.3)[:, 0] += 1.0
            else:
                parameter.normal_(std=parameter.shape[1] ** -0.5)
    return model.eval()


class Official:
    """The official drafter of one checkpoint with its cache, driven as its own decoding loop does."""

    def __init__(self, folder: Path, target: Borrowed) -> None:
        from dflash import model as module
        from transformers.utils import logging

        logging.disable_progress_bar()

        self.module, self.target = module, target
        self.model = module.DFlash2DraftModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.cache = module._make_cache(self.model.config)
        self.num_rows = 0

    def draft(self, taps: Tensor, bonus_token_id: int) -> Tensor:
        """Hidden states of the guessing slots `[b - 1, H]`; `taps` are the rows committed since the last call."""
        config = self.target.config
        start = self.num_rows + len(taps)
        block = torch.tensor([[bonus_token_id] + [config.mask_token_id] * (config.block_size - 1)])
        hidden = self.model(
            target_hidden=taps[None],
            noise_embedding=self.target.embed(block) * config.input_embedding_scale,
            position_ids=torch.arange(self.num_rows, start + config.block_size)[None],
            past_key_values=self.cache,
            use_cache=True,
        )
        self.module._crop_to(self.cache, start)
        self.num_rows = start
        return hidden[0, 1:]

    def logits(self, hidden: Tensor) -> Tensor:
        return self.model.compute_logits(hidden, self.target.head)

    def walk(self, hidden: Tensor, bonus_token_id: int, temperature: float) -> tuple[list[int], NDArray[np.int64], list[Tensor]]:
        """The tokens of one path, the candidates `[L, K]`, and, if the temperature is above 0, the scores `[K]` of each slot on it."""
        with recorded_scores(self.module) as scores:
            path, candidates, _ = self.model.candidate_selector.select(
                hidden[None], self.logits(hidden)[None], torch.tensor([bonus_token_id]), temperature
            )
        return path[0].tolist(), candidates[0].numpy(), [one[0, 0] for one in scores]


@contextmanager
def recorded_scores(module: Any) -> Iterator[list[Tensor]]:
    """Collects what the official sampler is given meanwhile."""
    original, seen = module._sampling_probs, []

    def recording(logits: Tensor, *rest: Any) -> Any:
        seen.append(logits)
        return original(logits, *rest)

    module._sampling_probs = recording
    try:
        yield seen
    finally:
        module._sampling_probs = original


def without_selector(model: DFlashModel) -> DFlashModel:
    stock = DFlashModel(replace(model.config, selector_rank=None, selector_top_k=None))
    stock.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if "selector" not in name})
    return stock


@torch.no_grad()
def compare(config: DFlashConfig, rounds: tuple[int, ...], seed: int) -> Differences:
    """All rounds of one case; `rounds` are the numbers of rows committed before each draft."""
    torch.manual_seed(seed)
    model, target = random_model(config), Borrowed(config)
    differences, taps = Differences(), torch.zeros(0, len(config.target_layer_ids) * config.hidden_size)
    with tempfile.TemporaryDirectory() as name:
        save_drafter(model, name, dtype=torch.float32)
        official, ours = Official(Path(name), target), load_drafter(name, target)
    marginal = DFlashDrafter(without_selector(model), target)
    state, marginal_state = ours.new_state(), marginal.new_state()
    for index, num_rows in enumerate(rounds):
        new, bonus = torch.randn(num_rows, taps.shape[1]), 17 + index
        taps = torch.cat((taps, new))
        for drafter, its_state in ((ours, state), (marginal, marginal_state)):
            drafter.extend([its_state], [new])
        hidden = official.draft(new, bonus)
        [conditionals], [marginals] = ours.propose([state], [bonus]), marginal.propose([marginal_state], [bonus])
        assert isinstance(conditionals, Conditionals)
        guesses = transitions_of(conditionals)
        assert isinstance(marginals, Marginals)
        compare_logits(official.logits(hidden), marginals.logits, config.mask_token_id, differences)
        compare_walks(official, hidden, guesses, model, training_hidden(model, target, taps, bonus), bonus, differences)
        differences.raise_to(rounding=rounding_of(marginals.logits, model, target, taps, bonus))
    return differences


def transitions_of(guesses: Conditionals) -> Transitions:
    """What the selector makes of each slot's likeliest tokens."""
    log_probs, token_ids = top_of([guesses.marginals], guesses.selector.num_candidates)
    return Transitions(token_ids[0], guesses.selector.weigh([guesses.row], log_probs, token_ids, [1.0])[0])


def rounding_of(logits: Tensor, model: DFlashModel, target: Borrowed, taps: Tensor, bonus_token_id: int) -> float:
    """How far float32 `logits` are from what the same weights give in float64."""
    exact_model, exact_target = copy.deepcopy(model).double(), copy.deepcopy(target)
    exact_target.embed.double(), exact_target.head.double()
    exact = exact_model.logits(training_hidden(exact_model, exact_target, taps.double(), bonus_token_id), exact_target.head)
    kept = torch.arange(logits.shape[1]) != model.config.mask_token_id
    return float((logits - exact)[:, kept].abs().max())


def training_hidden(model: DFlashModel, target: Borrowed, taps: Tensor, bonus_token_id: int) -> Tensor:
    """Hidden states of the guessing slots, by the network's training view."""
    config = model.config
    block = target.embed(torch.tensor([bonus_token_id] + [config.mask_token_id] * (config.block_size - 1)))
    positions = torch.arange(len(taps) + config.block_size)
    context, block_positions = model.context_features(taps), positions[len(taps) :]
    return model.block_hidden(model.scale_embeddings(block), block_positions, context, positions[: len(taps)])[1:]


def compare_logits(expected: Tensor, found: Tensor, mask_token_id: int, differences: Differences) -> None:
    kept = torch.arange(expected.shape[1]) != mask_token_id
    expected, found = expected[:, kept], found[:, kept]
    differences.raise_to(logits=float((expected - found).abs().max()), largest_logit=float(expected.abs().max()))
    differences.num_slots += len(expected)


def compare_walks(
    official: Official, hidden: Tensor, guesses: Transitions, model: DFlashModel, our_hidden: Tensor, bonus: int, differences: Differences
) -> None:
    path, _, _ = official.walk(hidden, bonus, temperature=0.0)
    differences.same_greedy_paths &= path == greedy_path(guesses)
    selector = model.weights().selector
    assert selector is not None
    unary = model.logits(our_hidden, official.target.head)
    for _ in range(NUM_WALKS):
        path, candidates, scores = official.walk(hidden, bonus, temperature=1.0)
        before, place = bonus, 0
        for slot, expected in enumerate(scores):
            ids = torch.from_numpy(candidates[slot])
            ours = transition_scores(selector, unary[slot, ids], our_hidden[slot], torch.tensor([before]), ids)[0]
            order = [guesses.token_ids[slot].tolist().index(token) for token in candidates[slot].tolist()]
            log_probs = torch.from_numpy(guesses.log_probs[slot, place, order])
            differences.raise_to(
                scores=float((ours - expected).abs().max()),
                log_probabilities=float((log_probs.log_softmax(-1) - expected.log_softmax(-1)).abs().max()),
                largest_score=float(expected.abs().max()),
            )
            differences.num_transitions += len(expected)
            before = path[slot]
            place = guesses.token_ids[slot].tolist().index(before)


def greedy_path(guesses: Transitions) -> list[int]:
    path, place = [], 0
    for token_ids, log_probs in zip(guesses.token_ids, guesses.log_probs, strict=True):
        place = int(log_probs[place].argmax())
        path.append(int(token_ids[place]))
    return path


def report(results: dict[str, Differences]) -> Table:
    columns = ("case", "logits", "scores", "log-probabilities", "(rounding)", "greedy paths")
    table = Table(*columns, title=f"Largest relative differences from dflash {OFFICIAL_VERSION}")
    for name, one in results.items():
        values = (f"{value:.1e}" for value in (*one.relative(), one.rounding / max(1.0, one.largest_logit)))
        table.add_row(name, *values, "same" if one.same_greedy_paths else "DIFFERENT")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    version = package_version("dflash")
    if version != OFFICIAL_VERSION:
        found = f"dflash {version}" if version else "no package dflash"
        print(f"Python finds {found}; {OFFICIAL_VERSION} is what this compares with. See the top of {__file__} for how.", file=sys.stderr)
        return 2
    results = {name: compare(config, rounds, seed) for seed, (name, (config, rounds)) in enumerate(CASES.items())}
    Console().print(report(results))
    if arguments.json:
        write_json(
            arguments.json,
            {
                **describe_run({"dtype": "float32", "bound": BOUND, "dflash": version}),
                "holds": all(one.holds for one in results.values()),
                "cases": {name: {**vars(one), "largest_relative": max(one.relative())} for name, one in results.items()},
            },
        )
    return 0 if all(one.holds for one in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

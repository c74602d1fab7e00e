"""The native passes and the native selector against their twins in torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from drafting.drafter_models import CONFIG, VARIANTS, random_model, random_taps
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost.cache import DenseStore
from hoarfrost.drafting import DFlashConfig
from hoarfrost.drafting.native_passes import NativePasses, can_run_natively
from hoarfrost.drafting.passes import Passes, TorchPasses
from hoarfrost.drafting.rotary import RotaryAngles
from hoarfrost.drafting.selector import CandidateSelector, SelectorPass, SelectorWeights, new_weigher, transition_scores, weigh_plainly
from hoarfrost.kernels.drafter import NativeSelector
from hoarfrost.kernels.linear import plain_product
from hoarfrost.rotary import LEAST_POSITIONS

pytestmark = pytest.mark.usefixtures("each_instruction_set")

NATIVE = {name: config for name, config in VARIANTS.items() if config.conv_kernel_size is None}
LENGTHS = (0, 1, 24)


def after_a_round(passes: Passes, config: DFlashConfig, dtype: torch.dtype) -> tuple[Tensor, list[DenseStore]]:
    """Final states of one block per sequence over contexts of the `LENGTHS`, which came in two pieces and grew the stores."""
    torch.manual_seed(1)
    kv_heads, head_dim = config.num_key_value_heads, config.head_dim
    stores = [DenseStore(config.num_hidden_layers, kv_heads, head_dim, dtype=dtype, device="cpu", capacity=8) for _ in LENGTHS]
    first = [length // 3 for length in LENGTHS]
    for counts in (first, [length - count for length, count in zip(LENGTHS, first, strict=True)]):
        passes.extend(stores, counts, random_taps(sum(counts), config).to(dtype))
    hidden = passes.run(stores, torch.randn(len(LENGTHS) * config.block_size, config.hidden_size).to(dtype))
    assert [store.length for store in stores] == list(LENGTHS)
    return hidden, stores


@pytest.mark.parametrize("variant", NATIVE)
@torch.no_grad()
def test_native_passes_are_those_of_torch(variant: str) -> None:
    config = NATIVE[variant]
    model = random_model(config)
    assert can_run_natively(model)
    hidden, stores = after_a_round(NativePasses(model), config, torch.float32)
    expected, expected_stores = after_a_round(TorchPasses(model), config, torch.float32)
    torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=1e-5)
    for store, other in zip(stores, expected_stores, strict=True):
        kept = np.s_[:, :, :, : store.length]
        torch.testing.assert_close(store.buffer[kept], other.buffer[kept], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_half_precision_rounds_less_than_torch_does() -> None:
    model = random_model(CONFIG).to(torch.bfloat16)
    exact = after_a_round(TorchPasses(random_model(CONFIG).to(torch.bfloat16).float()), CONFIG, torch.float32)[0]
    found, stock = (after_a_round(kind, CONFIG, torch.bfloat16)[0].float() for kind in (NativePasses(model), TorchPasses(model)))
    assert (found - exact).norm() < (stock - exact).norm()


@torch.no_grad()
def test_a_row_is_the_same_alone_and_in_company() -> None:
    config = NATIVE["sliding"]
    passes, taps = NativePasses(random_model(config)), random_taps(30, config)

    def new_store() -> DenseStore:
        return DenseStore(config.num_hidden_layers, 2, 16, dtype=torch.float32, device="cpu")

    together, blocks = [new_store(), new_store()], torch.randn(2 * config.block_size, config.hidden_size)
    passes.extend(together, [13, 17], taps)
    both = passes.run(together, blocks)
    for index, (part, block) in enumerate(zip(taps.split([13, 17]), blocks.split(config.block_size), strict=True)):
        alone = new_store()
        passes.extend([alone], [len(part)], part)
        torch.testing.assert_close(passes.run([alone], block)[0], both[index], rtol=0, atol=0)


def test_networks_with_convolutions_or_odd_heads_have_no_native_form() -> None:
    assert not can_run_natively(random_model(VARIANTS["convolutions"]))
    assert not can_run_natively(random_model(replace(CONFIG, head_dim=4)))


@pytest.mark.parametrize("variant", ["full", "linear", "llama3", "yarn"])
def test_kept_angles_are_those_of_the_positions(variant: str) -> None:
    angles = RotaryAngles(VARIANTS[variant])
    for spans in (
        [range(0, 0)],
        [range(5, 9)],
        [range(3), range(LEAST_POSITIONS - 1, LEAST_POSITIONS + 2)],
        [range(3 * LEAST_POSITIONS, 3 * LEAST_POSITIONS + 1)],
    ):
        whole_cos, signed_sin = angles.tables(torch.tensor([place for span in spans for place in span], dtype=torch.int64), torch.float32)
        cos, sin = angles.half_tables(spans)
        half = VARIANTS[variant].head_dim // 2
        torch.testing.assert_close(cos, whole_cos[:, :half], rtol=0, atol=0)
        torch.testing.assert_close(sin, signed_sin[:, half:], rtol=0, atol=0)


def unit_roundoff(dtype: torch.dtype) -> float:
    """The most that rounding to the nearest number of a type changes one, relative to it."""
    return torch.finfo(dtype).eps / 2


def random_selector(rank: int, top_k: int) -> CandidateSelector:
    torch.manual_seed(rank)
    selector = CandidateSelector(vocab_size=97, hidden_size=24, rank=rank, top_k=top_k)
    with torch.no_grad():
        for parameter in selector.parameters():
            parameter.normal_(std=0.5)
    return selector


def random_top(shape: tuple[int, int, int]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Log-probabilities and ids of the best of 97 tokens, two thirds of them impossible in one place."""
    logits = torch.randn(*shape[:2], 97)
    logits[1, 2, 5:] = -torch.inf
    log_probs, token_ids = logits.log_softmax(-1).topk(shape[2])
    return log_probs.numpy(), token_ids.numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rank", "top_k"), [(1, 1), (7, 5), (8, 16), (33, 97)])
@torch.no_grad()
def test_the_native_selector_is_that_of_torch(rank: int, top_k: int, dtype: torch.dtype) -> None:
    selector = random_selector(rank, top_k).to(dtype)
    hidden, bonus = torch.randn(3, 4, 24).to(dtype), [0, 41, 96]
    log_probs, token_ids = random_top((3, 4, top_k))
    native = NativeSelector(selector.predecessor_codebook, selector.successor_codebook, selector.hidden_projection.weight)
    found = native.log_probs(hidden, log_probs, token_ids, bonus)
    expected = weigh_plainly(selector.float().weights(plain_product), hidden.float(), log_probs, token_ids, bonus)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rank", "top_k"), [(1, 1), (7, 5), (8, 16), (33, 97)])
@torch.no_grad()
def test_the_fastest_selector_errs_by_the_rounding_of_its_type(rank: int, top_k: int, dtype: torch.dtype) -> None:
    """Whatever product is the fastest here: it sums in float32 and rounds each projected state to the type once, or not at all."""
    selector = random_selector(rank, top_k).to(dtype)
    hidden, bonus = torch.randn(3, 4, 24).to(dtype), [0, 41, 96]
    log_probs, token_ids = random_top((3, 4, top_k))
    weigher = new_weigher(selector)
    assert weigher.num_candidates == top_k
    found = weigher.weigh(hidden, log_probs, token_ids, bonus)
    exact = weigh_plainly(selector.double().weights(plain_product), hidden.double(), log_probs, token_ids, bonus)

    def rounding(rows: Tensor) -> Tensor:
        in_sums = (24 + rank) * unit_roundoff(torch.float32) * (rows.abs() @ selector.hidden_projection.weight.abs().T)
        return in_sums + unit_roundoff(dtype) * selector.hidden_projection(rows).abs()

    sizes = SelectorWeights(selector.predecessor_codebook.abs(), selector.successor_codebook.abs(), rounding, top_k)
    ids = torch.from_numpy(token_ids)
    before = torch.cat((torch.tensor(bonus)[:, None, None].expand_as(ids[:, :1]), ids[:, :-1]), dim=1)
    of_scores = transition_scores(sizes, torch.zeros(token_ids.shape), hidden.double(), before, ids)
    # A log-probability moves by its own score and by the largest of its row; what is left is float32 arithmetic on numbers of this size.
    allowed = of_scores.numpy() + of_scores.amax(-1, keepdim=True).numpy() + 1e-5 + 1e-5 * np.abs(exact)
    possible = np.isfinite(exact)
    np.testing.assert_array_equal(found[~possible], exact[~possible])
    assert (np.abs(found[possible] - exact[possible]) <= allowed[possible]).all()


@torch.no_grad()
def test_a_temperature_divides_what_the_selector_adds() -> None:
    selector, hidden = random_selector(8, 16), torch.randn(3, 4, 24)
    log_probs, token_ids = random_top((3, 4, 16))
    one = SelectorPass(new_weigher(selector), hidden, [0, 41, 96])
    found = one.weigh([2, 0], log_probs[:2], token_ids[:2], [0.5, 1.0])
    for row, temperature, kept, ids, table in zip((2, 0), (0.5, 1.0), log_probs, token_ids, found, strict=False):
        unary, before = torch.from_numpy(kept), [[0, 41, 96][row], *ids[0]]
        projected = selector.hidden_projection(hidden[row])
        for slot, predecessor in ((0, before[0]), (1, before[3])):
            added = selector.successor_codebook[ids[slot]] @ (selector.predecessor_codebook[predecessor] * projected[slot])
            scores = (unary[slot] + added / temperature).log_softmax(-1) + unary[slot].logsumexp(-1)
            np.testing.assert_allclose(table[slot, 2 if slot else 0], scores.clamp(max=0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bonus", [[-1], [97], [1, 2]])
def test_a_selector_reads_nothing_beside_its_codebooks(bonus: Sequence[int]) -> None:
    selector = random_selector(7, 5)
    native = NativeSelector(selector.predecessor_codebook, selector.successor_codebook, selector.hidden_projection.weight)
    with pytest.raises(AssertionError):
        native.log_probs(torch.randn(1, 4, 24), np.zeros((1, 4, 5), np.float32), np.zeros((1, 4, 5), np.int64), bonus)

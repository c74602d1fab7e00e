"""Training a selector: it learns what follows what, nothing else changes, and what is reported is what decoding then does."""

from __future__ import annotations

import dataclasses
import inspect
import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from drafting.drafter_models import proposed_transitions
from safetensors.torch import load_file
from training.training_models import HIDDEN_SIZE, drafter, save_target, sequence, target

from hoarfrost.cli import train
from hoarfrost.drafting import load_drafter, save_drafter
from hoarfrost.drafting.dflash import DFlashDrafter
from hoarfrost.errors import InvalidInput
from hoarfrost.training import SelectorTrainingConfig, summary_table, train_selector
from hoarfrost.training.anchors import PackedBlocks
from hoarfrost.training.data import TrainingSequence
from hoarfrost.training.features import tapped_features
from hoarfrost.training.loss import gamma_for
from hoarfrost.training.objective import guessing_states
from hoarfrost.training.preparation import TrainingData
from hoarfrost.training.selector import SelectorObjective, SelectorQuality
from hoarfrost.training.trainer import Trainer
from hoarfrost.tree.transitions import Transitions

BLOCK_SIZE, TOP_K = 5, 12
SMALL = {"rank": 6, "top_k": TOP_K, "anchors_per_sequence": 6, "batch_size": 3, "num_epochs": 3, "learning_rate": 0.02}


@pytest.fixture(scope="module")
def target_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_target(tmp_path_factory.mktemp("target"))


@pytest.fixture(scope="module")
def drafter_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drafter")
    save_drafter(drafter(BLOCK_SIZE), folder)
    return folder


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"w{5 + index} w{20 + index * 3 % 40}"}) + "\n" for index in range(12)))
    return path


def settings(target_folder: str, drafter_folder: Path, out: Path, data: Path | None = None, **changes: object) -> SelectorTrainingConfig:
    values = {"target": target_folder, "drafter": str(drafter_folder), "data": (data or out,), "out": out, "max_response_tokens": 24}
    return SelectorTrainingConfig(**{**values, "save_every": 2, **SMALL, **changes})  # type: ignore[arg-type]


def trainer_for(chosen: SelectorTrainingConfig, *sequences: TrainingSequence) -> Trainer[SelectorQuality]:
    frozen = target()
    return Trainer(chosen, frozen, TrainingData(sequences, sequences, 0), SelectorObjective(chosen, frozen))


def test_the_loss_of_a_step_is_the_plain_loss_of_its_batch(drafter_folder: Path, tmp_path: Path) -> None:
    sequences = [sequence(14 + index, 3, seed=index) for index in range(3)]
    trainer = trainer_for(settings("", drafter_folder, tmp_path, clip_norm=1e9), *sequences)
    objective = trainer.objective
    selector = objective.model.candidate_selector
    assert selector is not None
    torch.nn.init.normal_(selector.successor_codebook)
    p = dict(selector.named_parameters())
    weighted, total, num_uncovered = 0.0, 0.0, 0
    for indices, blocks in trainer.passes_of(0):
        features = trainer.features_of([sequences[index] for index in indices], blocks)
        hidden = guessing_states(objective.model, trainer.target, features, blocks)
        logits = objective.logits(hidden)  # type: ignore[attr-defined]
        for block, slot in blocks.has_label.nonzero().tolist():
            weight = torch.exp(torch.tensor(-slot / gamma_for(BLOCK_SIZE))).item()
            total += weight
            label = int(blocks.labels[block, slot])
            before = int(blocks.labels[block, slot - 1] if slot else blocks.token_ids[block, 0])
            unary, candidates = logits[block, slot].topk(TOP_K)
            if label not in candidates:
                num_uncovered += 1
                continue
            projected = p["hidden_projection.weight"] @ hidden[block, slot]
            scores = unary + p["successor_codebook"][candidates] @ (p["predecessor_codebook"][before] * projected)
            weighted -= weight * scores.log_softmax(0)[candidates.tolist().index(label)].item()
    assert num_uncovered
    assert float(trainer.train_step()) == pytest.approx(weighted / total, rel=1e-5)


def walking(length: int, start: int) -> TrainingSequence:
    """Each token decides the next: 7 on, among the 60 that are words."""
    return TrainingSequence(tuple(4 + (start + 7 * index) % 60 for index in range(length)), 2)


def test_it_learns_what_follows_what_and_leaves_the_drafter_alone(drafter_folder: Path, tmp_path: Path) -> None:
    chosen = settings("", drafter_folder, tmp_path, num_epochs=60, rank=24, top_k=60, learning_rate=0.05)
    trainer = trainer_for(chosen, *(walking(40, start) for start in range(6)))
    stock = {name: tensor.clone() for name, tensor in trainer.objective.model.state_dict().items() if "selector" not in name}
    before = trainer.validate()
    assert before.selected.accuracy_per_slot == before.marginal.accuracy_per_slot  # a new selector says nothing
    assert before.selected.loss == pytest.approx(before.marginal.loss, rel=1e-5)
    for _ in range(trainer.num_steps):
        trainer.train_step()
    after = trainer.validate()
    assert after.marginal == before.marginal
    assert min(after.selected.accuracy_per_slot) > 0.9
    assert after.selected.loss < 0.5 < after.marginal.loss
    assert all(torch.equal(tensor, trainer.objective.model.state_dict()[name]) for name, tensor in stock.items())


@torch.no_grad()
def test_reported_tokens_per_round_are_those_of_the_greedy_walk(drafter_folder: Path, tmp_path: Path) -> None:
    chosen = settings("", drafter_folder, tmp_path, num_epochs=12, rank=24, top_k=60, learning_rate=0.05)
    one = walking(40, 0)
    trainer = trainer_for(chosen, one)
    for _ in range(trainer.num_steps):
        with torch.enable_grad():
            trainer.train_step()
    frozen, model = trainer.target, trainer.objective.model
    served = DFlashDrafter(model, frozen)
    (features,) = tapped_features(frozen, [one.token_ids], model.config.target_layer_ids)
    [(_, blocks)] = trainer.held_out_passes()
    emitted = []
    for anchor in whole_blocks(blocks):
        state = served.new_state()
        served.extend([state], [features[:anchor]])
        [guesses] = proposed_transitions(served, [state], [one.token_ids[anchor]])
        emitted.append(1 + num_right(guesses, one.token_ids[anchor + 1 :]))
    expected = trainer.validate().selected.expected_tokens_per_round
    assert 1.1 < expected < BLOCK_SIZE
    assert sum(emitted) / len(emitted) == pytest.approx(expected)


def whole_blocks(blocks: PackedBlocks) -> list[int]:
    return [anchor for anchor, whole in zip(blocks.anchors[0], blocks.has_label.all(dim=1).tolist(), strict=True) if whole]


def num_right(guesses: Transitions, following: tuple[int, ...]) -> int:
    place = 0
    for slot, token_id in zip(range(guesses.horizon), following, strict=False):
        place = int(guesses.log_probs[slot, place].argmax())
        if guesses.token_ids[slot, place] != token_id:
            return slot
    return guesses.horizon


def test_a_resumed_run_ends_like_an_uninterrupted_one_and_can_be_served(
    target_folder: str, drafter_folder: Path, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_selector(settings(target_folder, drafter_folder, tmp_path / "whole", data_file))
    train_step = Trainer.train_step

    def interrupted(self: Trainer[SelectorQuality]) -> float:
        if self.step == 5:
            raise KeyboardInterrupt
        return train_step(self)

    broken = settings(target_folder, drafter_folder, tmp_path / "broken", data_file)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_selector(broken)
    resumed = train_selector(dataclasses.replace(broken, resume=True))
    assert resumed.quality == whole.quality
    assert (resumed.drafter_folder / "model.safetensors").read_bytes() == (whole.drafter_folder / "model.safetensors").read_bytes()

    made, stock = load_file(whole.drafter_folder / "model.safetensors"), load_file(drafter_folder / "model.safetensors")
    assert all(torch.equal(made[name], tensor) for name, tensor in stock.items())
    assert {name.removeprefix("candidate_selector.") for name in made.keys() - stock.keys()} == {
        "predecessor_codebook",
        "successor_codebook",
        "hidden_projection.weight",
    }
    assert whole.num_parameters == 6 * (2 * 64 + HIDDEN_SIZE)
    served = load_drafter(whole.drafter_folder, target())
    [guesses] = proposed_transitions(served, [served.new_state()], [7])
    assert (guesses.horizon, guesses.num_candidates) == (BLOCK_SIZE - 1, TOP_K)

    last = json.loads(whole.log_file.read_text().splitlines()[-1])["valid"]
    assert {"loss", "expected_tokens_per_round", "coverage_per_slot", "without_selector"} <= set(last)
    assert summary_table(whole, "Selector trained").row_count


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"rank": 0}, "rank is 0; it must be at least 1"),
        ({"top_k": 1}, "top_k is 1; it must be at least 2"),
        ({"top_k": 64}, "selector_top_k is 64; its vocabulary has 63 tokens"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"drafter": "/no/such/folder"}, "No drafter '/no/such/folder'"),
    ],
)
def test_bad_settings_are_named(
    target_folder: str, drafter_folder: Path, data_file: Path, tmp_path: Path, changes: dict[str, object], complaint: str
) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        train_selector(settings(target_folder, drafter_folder, tmp_path / "out", data_file, **changes))
    assert not (tmp_path / "out").exists()


def test_a_drafter_with_a_selector_is_refused(target_folder: str, data_file: Path, tmp_path: Path) -> None:
    save_drafter(drafter(BLOCK_SIZE, selector_rank=3, selector_top_k=4), tmp_path / "selecting")
    with pytest.raises(InvalidInput, match=r"selecting has a candidate selector already"):
        train_selector(settings(target_folder, tmp_path / "selecting", tmp_path / "out", data_file))


def test_the_commands_options_are_the_fields_of_the_settings() -> None:
    assert set(inspect.signature(train.selector).parameters) == {one.name for one in fields(SelectorTrainingConfig)}

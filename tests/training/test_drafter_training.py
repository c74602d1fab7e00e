"""The trainer: it learns, it goes on exactly where it was interrupted, what it writes can be loaded, and bad settings are named."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from training.training_models import MASK, TAPS, save_target, sequence, target

from hoarfrost.drafting import load_drafter
from hoarfrost.errors import InvalidInput
from hoarfrost.target import Target
from hoarfrost.training import DrafterTrainingConfig, summary_table, train_drafter
from hoarfrost.training import trainer as trainer_module
from hoarfrost.training.drafter import DrafterObjective
from hoarfrost.training.loss import GuessQuality, gamma_for
from hoarfrost.training.objective import guessing_states
from hoarfrost.training.preparation import TrainingData
from hoarfrost.training.trainer import Trainer

SMALL = {"num_layers": 1, "target_layer_ids": TAPS, "block_size": 4, "anchors_per_sequence": 6, "batch_size": 3, "num_epochs": 3}


@pytest.fixture(scope="module")
def target_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_target(tmp_path_factory.mktemp("target"))


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"w{5 + index} w{20 + index * 3 % 40}"}) + "\n" for index in range(12)))
    return path


def settings(target_folder: str, data_file: Path, out: Path, **changes: object) -> DrafterTrainingConfig:
    values = {"target": target_folder, "data": (data_file,), "out": out, "max_response_tokens": 24, "save_every": 2, **SMALL, **changes}
    return DrafterTrainingConfig(**values)  # type: ignore[arg-type]


def drafter_trainer(chosen: DrafterTrainingConfig, frozen: Target, data: TrainingData) -> Trainer[GuessQuality]:
    return Trainer(chosen, frozen, data, DrafterObjective(chosen, frozen))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_one_sample_is_learnt_by_heart(tmp_path: Path, optimizer: str) -> None:
    one = sequence(14, 4)
    rates = {"learning_rate": 0.01, "muon_learning_rate": 0.05}
    chosen = settings("", tmp_path, tmp_path, optimizer=optimizer, num_epochs=60, anchors_per_sequence=64, **rates)
    trainer = drafter_trainer(chosen, target(), TrainingData((one,), (one,), 0))
    assert trainer.validate().expected_tokens_per_round < 1.5
    for _ in range(trainer.num_steps):
        trainer.train_step()
    quality = trainer.validate()
    assert min(quality.accuracy_per_slot) > 0.99
    assert quality.expected_tokens_per_round > 3.95


@pytest.mark.parametrize("draft_vocab_size", [0, 20])
@pytest.mark.parametrize("rows_at_once", [1, 10_000])
def test_the_loss_of_a_step_is_the_plain_loss_of_its_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int, draft_vocab_size: int
) -> None:
    monkeypatch.setattr(trainer_module, "ROWS_AT_ONCE", rows_at_once)
    frozen, sequences = target(), tuple(sequence(12 + index, 3, seed=index) for index in range(3))
    chosen = settings("", tmp_path, tmp_path, clip_norm=1e9, draft_vocab_size=draft_vocab_size)
    trainer, objective = drafter_trainer(chosen, frozen, TrainingData(sequences, sequences[:1], 0)), DrafterObjective(chosen, frozen)
    objective.begin(trainer.data)
    guessed = list(range(64)) if draft_vocab_size == 0 else objective.model.draft_token_ids().tolist()
    assert len(guessed) == (draft_vocab_size or 64)
    weighted, total = 0.0, 0.0
    for indices, blocks in trainer.passes_of(0):
        features = trainer.features_of([sequences[index] for index in indices], blocks)
        hidden = guessing_states(objective.model, frozen, features, blocks)
        log_probs = frozen.head(hidden)[..., guessed].log_softmax(dim=-1)
        for block in range(len(blocks.labels)):
            for slot in range(3):
                if blocks.has_label[block, slot]:
                    weight = torch.exp(torch.tensor(-slot / gamma_for(4))).item()
                    total += weight
                    if int(blocks.labels[block, slot]) in guessed:  # what cannot be guessed is not learnt
                        weighted -= weight * log_probs[block, slot, guessed.index(int(blocks.labels[block, slot]))].item()
    assert float(trainer.train_step()) == pytest.approx(weighted / total, rel=1e-5)


def test_a_resumed_run_ends_like_an_uninterrupted_one(
    target_folder: str, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_drafter(settings(target_folder, data_file, tmp_path / "whole"))

    train_step = Trainer.train_step

    def interrupted(self: Trainer[GuessQuality]) -> float:
        if self.step == 5:
            raise KeyboardInterrupt
        return train_step(self)

    broken = settings(target_folder, data_file, tmp_path / "broken")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_drafter(broken)
    resumed = train_drafter(dataclasses.replace(broken, resume=True))

    assert resumed.quality == whole.quality
    assert (resumed.drafter_folder / "model.safetensors").read_bytes() == (whole.drafter_folder / "model.safetensors").read_bytes()
    losses = [[json.loads(line)["loss"] for line in report.log_file.read_text().splitlines()] for report in (whole, resumed)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == whole.num_steps


def test_a_run_writes_a_drafter_that_fits_its_target(target_folder: str, data_file: Path, tmp_path: Path) -> None:
    report = train_drafter(settings(target_folder, data_file, tmp_path / "out"))
    drafter = load_drafter(report.drafter_folder, target())
    assert (drafter.taps, drafter.horizon, drafter.config.mask_token_id) == (TAPS, 3, MASK)
    assert report.num_sequences + report.num_dropped == 11
    assert summary_table(report, "Drafter trained").row_count
    if report.curve_file:
        assert report.curve_file.stat().st_size
    # The responses are a training file of their own, taken as they stand.
    again = train_drafter(settings(target_folder, tmp_path / "out" / "responses.jsonl", tmp_path / "again"))
    assert again.num_response_tokens == report.num_response_tokens
    assert not (tmp_path / "again" / "responses.jsonl").exists()


def test_given_responses_are_kept_on_request(target_folder: str, tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"prompt": "w5", "response": "w6 w7 w8"}\n' * 3)
    chosen = settings(target_folder, tmp_path / "data.jsonl", tmp_path / "out", regenerate=False, num_epochs=1)
    report = train_drafter(chosen)
    assert report.num_response_tokens == 3 * 4  # with the token that ends the turn
    assert not (tmp_path / "out" / "responses.jsonl").exists()


def test_a_folder_in_use_and_changed_settings_are_refused(target_folder: str, data_file: Path, tmp_path: Path) -> None:
    chosen = settings(target_folder, data_file, tmp_path / "out", num_epochs=1)
    train_drafter(chosen)
    with pytest.raises(InvalidInput, match="holds a run already; resume it"):
        train_drafter(chosen)
    with pytest.raises(InvalidInput, match="was started with block_size = 4, not 6"):
        train_drafter(dataclasses.replace(chosen, resume=True, block_size=6))


def test_a_reduced_vocabulary_is_that_of_the_responses(target_folder: str, data_file: Path, tmp_path: Path) -> None:
    report = train_drafter(settings(target_folder, data_file, tmp_path / "out", draft_vocab_size=20, held_out_share=0.3))
    drafter = load_drafter(report.drafter_folder, target())
    answers = [json.loads(line)["response_ids"] for line in (tmp_path / "out" / "responses.jsonl").read_text().splitlines()]
    assert drafter.config.draft_vocab_size == 20
    assert drafter.token_ids is not None
    assert len(set(drafter.token_ids.tolist()) & {token_id for answer in answers for token_id in answer}) >= 15
    assert math.isfinite(report.quality.loss)
    again = settings(target_folder, data_file, tmp_path / "again", start_from=str(tmp_path / "out"), num_epochs=1)
    assert load_drafter(train_drafter(again).drafter_folder, target()).token_ids.tolist() == drafter.token_ids.tolist()


def test_a_time_limit_ends_the_run_and_a_larger_one_goes_on(target_folder: str, data_file: Path, tmp_path: Path) -> None:
    chosen = settings(target_folder, data_file, tmp_path / "out", max_minutes=1e-6, num_epochs=1000)
    short = train_drafter(chosen)
    assert short.num_steps == 1
    assert load_drafter(short.drafter_folder, target()).horizon == 3
    longer = train_drafter(dataclasses.replace(chosen, resume=True, max_minutes=short.seconds / 60 + 1e-3))
    assert 1 < longer.num_steps < 4000


def test_the_learning_rate_falls_with_the_time_that_is_left(tmp_path: Path) -> None:
    sequences = (sequence(14, 4), sequence(12, 3, seed=1))
    trainer = drafter_trainer(settings("", tmp_path, tmp_path, max_minutes=1.0), target(), TrainingData(sequences, sequences[:1], 0))
    assert trainer.num_steps == 3
    rates = []
    for seconds in (0.0, 59.0):
        trainer.seconds = seconds
        trainer.train_step()
        rates.append(trainer.optimizers[0].param_groups[0]["lr"])
    assert rates[1] < rates[0] / 100, "a second is left, and two steps are"
    assert not trainer.is_finished
    trainer.seconds = 60.0
    assert trainer.is_finished


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"block_size": 1}, "block_size is 1; it must be at least 2"),
        ({"num_epochs": 0}, "num_epochs is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"gamma": -1.0}, "gamma is -1.0"),
        ({"temperatures": ()}, r"temperatures are \(\)"),
        ({"temperatures": (-0.5,)}, "temperatures are"),
        ({"held_out_share": 1.0}, "held_out_share is 1.0"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'; choose"),
        ({"max_prompts": 1}, "max_prompts is 1"),
        ({"target_layer_ids": (1, 3)}, r"target_layer_ids \[1, 3\] do not fit a target of 4 layers"),
        ({"target_layer_ids": (1, 1)}, "give different ids"),
        ({"mask_token_id": 64}, "mask_token_id is 64; the target's tokens are numbered 0 to 63"),
        ({"mask_token_id": 2}, "mask_token_id 2 is an end or padding token"),
        ({"max_prompt_tokens": 2}, "Only 0 of 12 prompts have at most 2 tokens, and 2 are needed"),
        ({"dtype": "float16"}, "cannot be trained with a float16 target"),
    ],
)
def test_bad_settings_are_named(target_folder: str, data_file: Path, tmp_path: Path, changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        train_drafter(settings(target_folder, data_file, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()  # the folder stays free for the mended command


def test_goes_on_from_another_drafter(target_folder: str, data_file: Path, tmp_path: Path) -> None:
    first = train_drafter(settings(target_folder, data_file, tmp_path / "first", num_epochs=1))
    second = settings(target_folder, data_file, tmp_path / "second", num_epochs=1, start_from=str(first.drafter_folder), num_layers=3)
    start = DrafterObjective(second, Target.load(target_folder)).model
    kept = load_drafter(first.drafter_folder, Target.load(target_folder))
    assert start.config == kept.config, "the network is that of the drafter it goes on from"
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in start.parameters())
    report = train_drafter(second)
    assert load_drafter(report.drafter_folder, Target.load(target_folder)).config == kept.config

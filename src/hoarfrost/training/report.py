"""The record of a training run: a JSON line a step, a curve, and the table at the end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from rich.table import Table

from hoarfrost.drafting.opening import RUN_RECORD, RUN_RESULT
from hoarfrost.files import append_line
from hoarfrost.training.objective import AnyQuality, Quality

LOG = "log.jsonl"


@dataclass(frozen=True)
class TrainingReport(Generic[AnyQuality]):
    """What a finished training run came to; `seconds` is the time of the training steps alone."""

    drafter_folder: Path
    log_file: Path
    curve_file: Path | None
    num_parameters: int
    num_sequences: int
    num_response_tokens: int
    num_dropped: int
    num_steps: int
    seconds: float
    quality: AnyQuality


class TrainingLog:
    """JSON lines with `step`, `loss`, `learning_rate`, `seconds`, and `valid` where the step was followed by a validation."""

    def __init__(self, path: Path, first_step: int) -> None:
        """Keeps the lines up to `first_step` of an interrupted run; later ones will be written again."""
        self.path = path
        kept = [record for record in read_log(path) if record["step"] <= first_step] if path.exists() else []
        path.write_text("".join(json.dumps(record) + "\n" for record in kept))

    def add(self, step: int, loss: float, learning_rate: float, seconds: float, quality: Quality | None) -> None:
        record: dict[str, Any] = {
            "step": step,
            "loss": round(loss, 5),
            "learning_rate": learning_rate,
            "seconds": round(seconds, 2),
        }
        if quality is not None:
            record["valid"] = quality.record()
        append_line(self.path, json.dumps(record) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """All whole lines; one that an interruption cut off is left out."""
    lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines if line]


def read_held_out(drafter: Path, horizon: int) -> dict[str, Any] | None:
    """What the run that wrote a drafter of `horizon` slots said last of answers held back: from the log in the folder of the run, or beside
    the drafter's weights. None where no log says anything."""
    run = drafter.parent if drafter.name == RUN_RESULT and (drafter.parent / RUN_RECORD).exists() else drafter
    records = read_log(run / LOG) if (run / LOG).is_file() else []
    valid = next((record["valid"] for record in reversed(records) if "valid" in record), None)
    return valid if valid is not None and len(valid["accuracy_per_slot"]) == horizon else None


def draw_curve(log_file: Path, image: Path) -> Path | None:
    """Loss and expected tokens per round over the steps, as a picture; None where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    records = read_log(log_file)
    validated = [record for record in records if "valid" in record]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([record["step"] for record in records], [record["loss"] for record in records], linewidth=0.6, label="loss")
    axes.plot(
        [record["step"] for record in validated], [record["valid"]["loss"] for record in validated], marker="o", label="held-out loss"
    )
    axes.set_xlabel("step")
    axes.set_ylabel("weighted cross entropy")
    right = axes.twinx()
    right.plot(
        [record["step"] for record in validated],
        [record["valid"]["expected_tokens_per_round"] for record in validated],
        color="tab:green",
        marker="s",
        label="tokens per round",
    )
    right.set_ylabel("expected tokens per round of the greedy chain")
    figure.legend(loc="outside upper center", ncols=3)
    figure.savefig(image, dpi=120)
    return image


def summary_table(report: TrainingReport[AnyQuality], title: str) -> Table:
    """What a run came to, for a terminal."""
    table = Table(title=title, show_header=False)
    rows = {
        "drafter": str(report.drafter_folder),
        "parameters trained": f"{report.num_parameters / 1e6:.1f} M",
        "trained on": f"{report.num_sequences:,} sequences, {report.num_response_tokens:,} response tokens",
        "left out": f"{report.num_dropped:,} records",
        "steps": f"{report.num_steps:,} in {report.seconds / 60:.1f} min",
        **report.quality.summary(),
        "log": str(report.log_file),
        "curve": str(report.curve_file or "not drawn; install matplotlib for a picture"),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table

"""`hoarfrost train`: trains a DFlash drafter for a target, or a candidate selector for a drafter. Thin: every option is a field of
`DrafterTrainingConfig` or `SelectorTrainingConfig`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hoarfrost.cli.options import EXIT_INTERRUPTED, Device, Dtype, Model, PlainGroup, given, parse_list, shows_defaults_of

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(cls=PlainGroup, help="Train a drafter for a model.", no_args_is_help=True)
SETTINGS = "hoarfrost.training.settings:"
NETWORK, RESPONSES, TRAINING = "Network", "Responses of the target", "Training"

Data = Annotated[list[Path], typer.Option(metavar="<path>", help="Training file; may be given several times.")]
Out = Annotated[Path, typer.Option(help="Folder for responses, checkpoint, log and the finished drafter.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")]
Seed = Annotated[int | None, typer.Option()]
Regenerate = Annotated[bool | None, typer.Option(help="Let the target answer every prompt itself.", rich_help_panel=RESPONSES)]
Temperatures = Annotated[str | None, typer.Option(help="Taken in turn, as 0,0.7,1.", rich_help_panel=RESPONSES)]
MaxPrompts = Annotated[int | None, typer.Option(rich_help_panel=RESPONSES)]
MaxPromptTokens = Annotated[int | None, typer.Option(rich_help_panel=RESPONSES)]
MaxResponseTokens = Annotated[int | None, typer.Option(rich_help_panel=RESPONSES)]
GenerationBatch = Annotated[int | None, typer.Option(help="Prompts answered at once.", rich_help_panel=RESPONSES)]
SequenceLength = Annotated[int | None, typer.Option(rich_help_panel=TRAINING)]
AnchorsPerSequence = Annotated[int | None, typer.Option(rich_help_panel=TRAINING)]
NumEpochs = Annotated[int | None, typer.Option(rich_help_panel=TRAINING)]
MaxMinutes = Annotated[float | None, typer.Option(help="Ends the training steps after so long.", rich_help_panel=TRAINING)]
BatchSize = Annotated[int | None, typer.Option(rich_help_panel=TRAINING)]
LearningRate = Annotated[float | None, typer.Option(help="AdamW's.", rich_help_panel=TRAINING)]
WarmupShare = Annotated[float | None, typer.Option(rich_help_panel=TRAINING)]
Gamma = Annotated[float | None, typer.Option(help="How slowly a slot's weight falls with its depth.", rich_help_panel=TRAINING)]
ClipNorm = Annotated[float | None, typer.Option(rich_help_panel=TRAINING)]
HeldOutShare = Annotated[float | None, typer.Option(help="Share kept for validation.", rich_help_panel=TRAINING)]
Features = Annotated[Path | None, typer.Option(help="Folder for the target's features; runs may share it.", rich_help_panel=TRAINING)]
FeatureCacheGib = Annotated[float | None, typer.Option(help="Room for the target's features.", rich_help_panel=TRAINING)]
SaveEvery = Annotated[int | None, typer.Option(help="Steps between checkpoints.", rich_help_panel=TRAINING)]
ValidateEvery = Annotated[int | None, typer.Option(help="Steps between validations.", rich_help_panel=TRAINING)]


@app.command(cls=shows_defaults_of(SETTINGS + "DrafterTrainingConfig"))
def drafter(
    target: Model,
    data: Data,
    out: Out,
    resume: Resume = False,
    seed: Seed = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    num_layers: Annotated[int | None, typer.Option(help="Layers of the drafter.", rich_help_panel=NETWORK)] = None,
    block_size: Annotated[int | None, typer.Option(help="Tokens of a block, the bonus token counted.", rich_help_panel=NETWORK)] = None,
    target_layer_ids: Annotated[str | None, typer.Option(help="Target layers it reads, as 1,3,5.", rich_help_panel=NETWORK)] = None,
    num_taps: Annotated[int | None, typer.Option(help="How many target layers, where they are not named.", rich_help_panel=NETWORK)] = None,
    mask_token_id: Annotated[int | None, typer.Option(help="By default the tokenizer's mask token.", rich_help_panel=NETWORK)] = None,
    draft_vocab_size: Annotated[int | None, typer.Option(help="Tokens it can guess; 0: all.", rich_help_panel=NETWORK)] = None,
    start_from: Annotated[str | None, typer.Option(help="Drafter to go on from, instead of a new one.", rich_help_panel=NETWORK)] = None,
    regenerate: Regenerate = None,
    temperatures: Temperatures = None,
    max_prompts: MaxPrompts = None,
    max_prompt_tokens: MaxPromptTokens = None,
    max_response_tokens: MaxResponseTokens = None,
    generation_batch: GenerationBatch = None,
    sequence_length: SequenceLength = None,
    anchors_per_sequence: AnchorsPerSequence = None,
    num_epochs: NumEpochs = None,
    max_minutes: MaxMinutes = None,
    batch_size: BatchSize = None,
    optimizer: Annotated[str | None, typer.Option(help="muon or adamw.", rich_help_panel=TRAINING)] = None,
    learning_rate: LearningRate = None,
    muon_learning_rate: Annotated[float | None, typer.Option(help="Muon's, for matrices.", rich_help_panel=TRAINING)] = None,
    warmup_share: WarmupShare = None,
    gamma: Gamma = None,
    clip_norm: ClipNorm = None,
    held_out_share: HeldOutShare = None,
    features: Features = None,
    feature_cache_gib: FeatureCacheGib = None,
    save_every: SaveEvery = None,
    validate_every: ValidateEvery = None,
) -> None:
    """Train a DFlash drafter on what the target itself answers to the prompts in the data."""
    options = settings_from(locals())

    from hoarfrost.training import DrafterTrainingConfig, train_drafter

    run(train_drafter, DrafterTrainingConfig(**options), "Drafter trained")


@app.command(cls=shows_defaults_of(SETTINGS + "SelectorTrainingConfig"))
def selector(
    target: Model,
    drafter: Annotated[str, typer.Option(help="Folder or hub id of the drafter, which stays as it is.")],
    data: Data,
    out: Out,
    resume: Resume = False,
    seed: Seed = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    rank: Annotated[int | None, typer.Option(help="Width of the codebooks.", rich_help_panel=NETWORK)] = None,
    top_k: Annotated[int | None, typer.Option(help="Candidates per position.", rich_help_panel=NETWORK)] = None,
    regenerate: Regenerate = None,
    temperatures: Temperatures = None,
    max_prompts: MaxPrompts = None,
    max_prompt_tokens: MaxPromptTokens = None,
    max_response_tokens: MaxResponseTokens = None,
    generation_batch: GenerationBatch = None,
    sequence_length: SequenceLength = None,
    anchors_per_sequence: AnchorsPerSequence = None,
    num_epochs: NumEpochs = None,
    max_minutes: MaxMinutes = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    warmup_share: WarmupShare = None,
    gamma: Gamma = None,
    clip_norm: ClipNorm = None,
    held_out_share: HeldOutShare = None,
    features: Features = None,
    feature_cache_gib: FeatureCacheGib = None,
    save_every: SaveEvery = None,
    validate_every: ValidateEvery = None,
) -> None:
    """Train a candidate selector for a finished drafter: which of its guesses follows which. Its guesses are then paths."""
    options = settings_from(locals())

    from hoarfrost.training import SelectorTrainingConfig, train_selector

    run(train_selector, SelectorTrainingConfig(**options), "Selector trained")


def settings_from(options: dict[str, Any]) -> dict[str, Any]:
    """The options that a user gave, with lists for texts."""
    lists = {"target_layer_ids": int, "temperatures": float}
    parsed = {
        name: parse_list(options[name], kind, "--" + name.replace("_", "-"))
        for name, kind in lists.items()
        if options.get(name) is not None
    }
    return given(**{**options, "data": tuple(options["data"]), **parsed})


def run(train: Callable[[Any], Any], settings: Any, title: str) -> None:
    from rich.console import Console

    from hoarfrost.progress import regular_lines
    from hoarfrost.training import summary_table

    try:
        with regular_lines(lambda: f"Training for {settings.target}"):
            report = train(settings)
    except KeyboardInterrupt:
        typer.echo("Interrupted; the same command with --resume goes on from the last checkpoint.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    Console().print(summary_table(report, title))

"""`hoarfrost train`: trains a DFlash drafter for a target. Thin: every option is a field of `DrafterTrainingConfig`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hoarfrost.cli.options import EXIT_INTERRUPTED, Device, Dtype, Model, given, parse_list, shows_defaults_of

app = typer.Typer(help="Train a drafter for a model.", no_args_is_help=True)
TRAINING_CONFIG = "hoarfrost.training.settings:DrafterTrainingConfig"
NETWORK, RESPONSES, TRAINING = "Network", "Responses of the target", "Training"


# Nothing to do here, but a group with one verb keeps its name only if it has a callback.
@app.callback()
def _train() -> None:
    pass


@app.command(cls=shows_defaults_of(TRAINING_CONFIG))
def drafter(
    target: Model,
    data: Annotated[list[Path], typer.Option(help="Training file; may be given several times.")],
    out: Annotated[Path, typer.Option(help="Folder for responses, checkpoint, log and the finished drafter.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")] = False,
    seed: Annotated[int | None, typer.Option()] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    num_layers: Annotated[int | None, typer.Option(help="Layers of the drafter.", rich_help_panel=NETWORK)] = None,
    block_size: Annotated[int | None, typer.Option(help="Tokens of a block, the bonus token counted.", rich_help_panel=NETWORK)] = None,
    target_layer_ids: Annotated[str | None, typer.Option(help="Target layers it reads, as 1,3,5.", rich_help_panel=NETWORK)] = None,
    num_taps: Annotated[int | None, typer.Option(help="How many target layers, where they are not named.", rich_help_panel=NETWORK)] = None,
    mask_token_id: Annotated[int | None, typer.Option(help="By default the tokenizer's mask token.", rich_help_panel=NETWORK)] = None,
    regenerate: Annotated[bool | None, typer.Option(help="Let the target answer every prompt itself.", rich_help_panel=RESPONSES)] = None,
    temperatures: Annotated[str | None, typer.Option(help="Taken in turn, as 0,0.7,1.", rich_help_panel=RESPONSES)] = None,
    max_prompts: Annotated[int | None, typer.Option(rich_help_panel=RESPONSES)] = None,
    max_prompt_tokens: Annotated[int | None, typer.Option(rich_help_panel=RESPONSES)] = None,
    max_response_tokens: Annotated[int | None, typer.Option(rich_help_panel=RESPONSES)] = None,
    generation_batch: Annotated[int | None, typer.Option(help="Prompts answered at once.", rich_help_panel=RESPONSES)] = None,
    sequence_length: Annotated[int | None, typer.Option(rich_help_panel=TRAINING)] = None,
    anchors_per_sequence: Annotated[int | None, typer.Option(rich_help_panel=TRAINING)] = None,
    num_epochs: Annotated[int | None, typer.Option(rich_help_panel=TRAINING)] = None,
    batch_size: Annotated[int | None, typer.Option(rich_help_panel=TRAINING)] = None,
    optimizer: Annotated[str | None, typer.Option(help="muon or adamw.", rich_help_panel=TRAINING)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="AdamW's.", rich_help_panel=TRAINING)] = None,
    muon_learning_rate: Annotated[float | None, typer.Option(help="Muon's, for matrices.", rich_help_panel=TRAINING)] = None,
    warmup_share: Annotated[float | None, typer.Option(rich_help_panel=TRAINING)] = None,
    gamma: Annotated[float | None, typer.Option(help="How slowly a slot's weight falls with its depth.", rich_help_panel=TRAINING)] = None,
    clip_norm: Annotated[float | None, typer.Option(rich_help_panel=TRAINING)] = None,
    held_out_share: Annotated[float | None, typer.Option(help="Share kept for validation.", rich_help_panel=TRAINING)] = None,
    feature_cache_gib: Annotated[float | None, typer.Option(help="Memory for the target's features.", rich_help_panel=TRAINING)] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps between checkpoints.", rich_help_panel=TRAINING)] = None,
    validate_every: Annotated[int | None, typer.Option(help="Steps between validations.", rich_help_panel=TRAINING)] = None,
) -> None:
    """Train a DFlash drafter on what the target itself answers to the prompts in the data."""
    options = {name: value for name, value in locals().items() if name not in ("data", "target_layer_ids", "temperatures")}

    from rich.console import Console

    from hoarfrost.training import DrafterTrainingConfig, summary_table, train_drafter

    config = DrafterTrainingConfig(
        **given(
            **options,
            data=tuple(data),
            target_layer_ids=parse_list(target_layer_ids, int, "--target-layer-ids") if target_layer_ids is not None else None,
            temperatures=parse_list(temperatures, float, "--temperatures") if temperatures is not None else None,
        )
    )
    try:
        report = train_drafter(config)
    except KeyboardInterrupt:
        typer.echo("Interrupted; the same command with --resume goes on from the last checkpoint.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    Console().print(summary_table(report))

"""`hoarfrost drafters`: the drafters that exist, for which models, and which of them are served."""

from __future__ import annotations

from typing import Annotated

import typer

from hoarfrost.cli.options import PlainCommand
from hoarfrost.errors import InvalidInput

HEADER = ("target", "drafter", "block", "served")


def drafters(
    name: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Only those of models with these words in their name.")] = None,
) -> None:
    """List released drafters: for which model, and whether it is served.

    A drafter is taken with `--drafter NAME`. block: tokens of a block, the bonus token counted. `hoarfrost train drafter` makes others.
    """
    from hoarfrost.evaluation.common.tables import Report, TextTable
    from hoarfrost.models import SHIPPED
    from hoarfrost.models.released import drafters_for, released_drafters

    shipped = [(alias, alias, "", "yes, in the package") for alias, model in SHIPPED.items() if model.drafter and (name or "") in alias]
    found = released_drafters() if name is None else drafters_for(name)
    rows = [
        (one.target, one.drafter, str(one.block or ""), f"no: {one.refusal}" if one.refusal else ", ".join(filter(None, ("yes", one.note))))
        for one in found
    ]
    if not shipped and not rows:
        raise InvalidInput(f"No drafter is known for {name!r}; train one (hoarfrost train drafter), or decode without, by retrieval alone.")
    Report([TextTable("Drafters", HEADER, len(HEADER), (*shipped, *rows), sections=False)], ()).print()


def register(app: typer.Typer) -> None:
    app.command(cls=PlainCommand)(drafters)

"""Who decodes what, when: requests, rounds and what comes out of them."""

from hoarfrost.engine.engine import Engine
from hoarfrost.engine.limits import Limits
from hoarfrost.engine.output import Completion, Piece
from hoarfrost.engine.request import Request
from hoarfrost.engine.statistics import Statistics

__all__ = ["Completion", "Engine", "Limits", "Piece", "Request", "Statistics"]

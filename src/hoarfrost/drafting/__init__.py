"""Where guesses come from: the `Drafter` protocol, and the DFlash drafter that fills it."""

from hoarfrost.drafting.checkpoint import load_drafter, read_config, save_drafter
from hoarfrost.drafting.config import DFlashConfig
from hoarfrost.drafting.dflash import DFlashDrafter, DFlashState
from hoarfrost.drafting.network import DFlashModel
from hoarfrost.drafting.protocol import Drafter, DraftState

__all__ = [
    "DFlashConfig",
    "DFlashDrafter",
    "DFlashModel",
    "DFlashState",
    "DraftState",
    "Drafter",
    "load_drafter",
    "read_config",
    "save_drafter",
]

"""Training for a target: a drafter, `train_drafter(DrafterTrainingConfig(...))`; a candidate selector for one, `train_selector(...)`."""

from hoarfrost.training.drafter import train_drafter
from hoarfrost.training.report import TrainingReport, summary_table
from hoarfrost.training.selector import train_selector
from hoarfrost.training.settings import DrafterTrainingConfig, SelectorTrainingConfig

__all__ = ["DrafterTrainingConfig", "SelectorTrainingConfig", "TrainingReport", "summary_table", "train_drafter", "train_selector"]

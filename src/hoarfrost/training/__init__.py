"""Training a drafter for a target: `train_drafter(DrafterTrainingConfig(...))`."""

from hoarfrost.training.drafter import train_drafter
from hoarfrost.training.report import summary_table
from hoarfrost.training.settings import DrafterTrainingConfig, TrainingReport

__all__ = ["DrafterTrainingConfig", "TrainingReport", "summary_table", "train_drafter"]

"""Pictures; matplotlib is loaded only here."""

from clapkit.evaluation.plots.clips import plot_augmentations, plot_clip
from clapkit.evaluation.plots.runs import plot_confusion_matrix, plot_learning_curves, plot_per_class

__all__ = ["plot_augmentations", "plot_clip", "plot_confusion_matrix", "plot_learning_curves", "plot_per_class"]

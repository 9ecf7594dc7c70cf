"""Figures of a classifier's validation: torchmetrics', which are over the images of all processes."""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassStatScores, MultilabelAveragePrecision, MultilabelStatScores


class ClassScores(nn.Module):
    """What the answers about some images are worth.

    Args:
        classes: Number of classes.
        multi_label: Whether an image can have several.
    """

    def __init__(self, classes: int, multi_label: bool) -> None:
        super().__init__()
        self.multi_label = multi_label
        self.likelihood = MeanMetric().set_dtype(torch.float64)
        self.counts: MulticlassStatScores | MultilabelStatScores
        if multi_label:
            self.counts = MultilabelStatScores(classes, average="none", validate_args=False)
        else:
            self.counts = MulticlassStatScores(classes, average="none", validate_args=False)
        self.precision = (
            MultilabelAveragePrecision(classes, average="none", validate_args=False) if multi_label else None
        )

    def reset(self) -> None:
        """Begin anew."""
        self.likelihood.reset()
        self.counts.reset()
        if self.precision is not None:
            self.precision.reset()

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Add images: logits and targets, 0 or 1, `(B, K)` each."""
        logits, labels = logits.double(), targets.long()
        if self.precision is not None:
            self.precision.update(logits.sigmoid(), labels)
            answers, likelihoods = (logits > 0).long(), F.logsigmoid(torch.where(labels > 0, logits, -logits))
        else:
            labels = labels.argmax(1)
            answers, likelihoods = logits.argmax(1), logits.log_softmax(1).gather(1, labels[:, None])
        self.counts.update(answers, labels)
        self.likelihood.update(likelihoods)

    def compute(self) -> dict[str, Tensor]:
        """Accuracy, its mean over the classes that occur, and the mean log-likelihood.

        With several classes, an answer about a label is right where it has the label's sign, and every image counts for
        each; and there is the mean average precision over the labels that occur (`map_macro`).
        """
        counts = self.counts.compute().double()  # of each class: true and false positives, true and false negatives
        if self.precision is None:
            right, images = counts[:, 0], counts[:, 0] + counts[:, 3]
        else:
            right, images = counts[:, 0] + counts[:, 2], counts[:, :4].sum(1)
        present = images > 0
        figures = {
            "accuracy": right.sum() / images.sum().clamp(min=1),
            "balanced_accuracy": (right[present] / images[present]).mean(),
            "log_likelihood": self.likelihood.compute(),
        }
        if self.precision is not None:
            with warnings.catch_warnings():  # of labels that do not occur, which do not count
                warnings.filterwarnings("ignore", message=".*recall is undefined.*")
                areas = self.precision.compute()
            occurs = counts[:, 0] + counts[:, 3] > 0
            figures["map_macro"] = areas[occurs].mean() if occurs.any() else areas.new_zeros(())
        return figures

"""The code of a registered model: MLflow runs this file when it serves or loads one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from torch import Tensor

from shared_backbones import optimize_for_inference, weights


class ServedModel(PythonModel):
    """A trained-model folder, from images `(B, C, H, W)` float32 to logits, or to an encoder's tokens."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the folder."""
        network = optimize_for_inference(weights.load(Path(context.artifacts["model"])).module)
        # a masked autoencoder is of use for its features; what it reconstructs depends on chance
        encodes = hasattr(network, "forward_features") and not hasattr(network, "forward_head")
        answer: Callable[[Tensor], Tensor] = getattr(network, "forward_features" if encodes else "__call__")
        self.answer = answer

    def predict(self, context, model_input, params=None):  # without type hints, which MLflow would take for a schema
        """Logits or tokens of a batch."""
        with torch.inference_mode():
            return self.answer(torch.from_numpy(np.asarray(model_input, np.float32))).numpy()


set_model(ServedModel())

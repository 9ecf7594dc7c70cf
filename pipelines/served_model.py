"""The code of a registered model: MLflow runs this file when it serves or loads one."""

from pathlib import Path

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from shared_backbones import optimize_for_inference, weights


class ServedModel(PythonModel):
    """A trained-model folder, from images `(B, C, H, W)` float32 as its card describes them to logits."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the folder."""
        self.network = optimize_for_inference(weights.load(Path(context.artifacts["model"])).module)

    def predict(self, context, model_input, params=None):  # without type hints, which MLflow would take for a schema
        """Logits of a batch."""
        with torch.inference_mode():
            return self.network(torch.from_numpy(np.asarray(model_input, np.float32))).numpy()


set_model(ServedModel())

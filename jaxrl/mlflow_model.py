"""What MLflow runs to serve a saved policy: kept in the model as this code, so that nothing is pickled.

The policy's own ``loader.py`` lies beside its arrays, so a model needs numpy and safetensors, and
nothing of jaxrl.
"""

import importlib.util
from typing import Any

import mlflow
import numpy as np


class GreedyPolicy(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]
    """Actions ``[N]`` for observations ``[N, O]``."""

    def load_context(self, context: Any) -> None:
        folder = context.artifacts["policy"]
        spec = importlib.util.spec_from_file_location("jaxrl_loader", f"{folder}/loader.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self._policy = module.load(folder)

    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> np.ndarray:
        return self._policy.act(model_input)


mlflow.models.set_model(GreedyPolicy())

"""Saved policies as MLflow models, written to a folder or found in MLflow."""

import importlib.metadata
import pathlib
import tempfile
import warnings

import numpy as np

from jaxrl.errors import InputError
from jaxrl.loader import Policy
from jaxrl.tracking.mlflow_client import load_mlflow

MODEL = "model"
"""Its folder, in a run directory and in MLflow's parent run."""
_CODE = pathlib.Path(__file__).with_name("mlflow_model.py")
_NEEDED = ("mlflow", "numpy", "safetensors")


def write_model(policy: Policy, folder: pathlib.Path) -> None:
    """Writes an MLflow model to ``folder``, which must not exist, with its signature (observations
    ``[N, O]`` float32 to actions ``[N]``) and with what it needs, as it is here."""
    if policy.network is not None:
        raise InputError(f"a model acts with jaxrl's own networks, and this is {policy.network}.")
    mlflow = load_mlflow()
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    size = len(policy.observation_mean)
    observations = TensorSpec(np.dtype(np.float32), (-1, size))
    actions = TensorSpec(np.dtype(np.int64), (-1,))
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would like an example, which the signature is
        saved = pathlib.Path(temporary) / "policy"
        policy.write(saved)
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(_CODE),
            artifacts={"policy": str(saved)},
            signature=ModelSignature(Schema([observations]), Schema([actions])),
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in _NEEDED],
            metadata={"env": policy.env_id, **policy.scores},
        )

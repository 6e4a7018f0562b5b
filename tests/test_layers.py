"""Arrows go down: what a layer may import."""

import subprocess
import sys

import pytest

FORBIDDEN = {
    "jaxrl.dqn.agent": ["mlflow", "optuna", "pyngrok", "jaxrl.population", "jaxrl.search"],
    "jaxrl.population.train": [
        "mlflow",
        "optuna",
        "pyngrok",
        "jaxrl.search",
        "jaxrl.tracking",
        "jaxrl.sweep",
        "jaxrl.runner",
    ],
    "jaxrl.search.space": ["mlflow", "jaxrl.tracking", "jaxrl.sweep"],
    "jaxrl.search.mirror": ["mlflow", "optuna", "torch", "jaxrl.tracking", "jaxrl.sweep"],
    "jaxrl.search.study": ["mlflow", "optuna", "torch", "jaxrl.tracking", "jaxrl.sweep"],
    "jaxrl.sweep": ["mlflow", "pyngrok", "jaxrl.server"],
    "jaxrl.serve": ["mlflow", "jax", "jaxrl.dqn", "jaxrl.population"],
}


@pytest.mark.parametrize("module", FORBIDDEN)
def test_a_layer_brings_nothing_from_above(module):
    script = f"import {module}, sys; print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert module in output
    for name in FORBIDDEN[module]:
        assert not [m for m in output if m == name or m.startswith(name + ".")]

"""A policy as ONNX, for programs in other languages."""

import itertools
import pathlib
from typing import Any

import numpy as np

from jaxrl.errors import InputError
from jaxrl.loader import Policy
from jaxrl.rundir import write_whole

_CHECKED = 10_000
"""Observations for which both have to act the same."""
_OPSET, _IR = 17, 8
"""Of 2022: what runtimes in use read."""
_TOLERANCE = 1e-4
"""Of the larger action value: two that are nearer to each other are equal to rounding."""


def write_onnx(policy: Policy, path: pathlib.Path) -> str:
    """Writes ``observations [N, O]`` to ``q_values [N, A]`` and ``actions [N]``; what was checked.

    Raises:
        InputError: what that needs is not installed, or the file does not act the same.
    """
    if policy.network is not None:
        raise InputError(f"--onnx knows jaxrl's own networks, and this is {policy.network}.")
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise InputError(f"--onnx needs {error.name}: pip install 'jaxrl[onnx]'.") from None
    model = _model(onnx, policy)
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    spread = (
        3 * policy.observation_std * rng.standard_normal((_CHECKED, len(policy.observation_std)))
    )
    observations = (policy.observation_mean + spread).astype(np.float32)
    _, actions = session.run(None, {"observations": observations})
    q_values = policy.q_values(observations)
    lost = q_values.max(axis=1) - np.take_along_axis(q_values, actions[:, None], axis=1)[:, 0]
    worst = float((lost / np.maximum(np.abs(q_values).max(axis=1), 1e-6)).max())
    if not worst <= _TOLERANCE:  # NaN, of a policy that diverged, is none either
        raise InputError(
            f"the ONNX file chooses worse actions (by {worst:.1e}); it was not written."
        )
    write_whole(path, content)
    same = int((actions == q_values.argmax(axis=1)).sum())
    others = ", the others ties to rounding" if same < _CHECKED else ""
    return f"{same:,} of {_CHECKED:,} actions are the same{others}"


def _model(onnx: Any, policy: Policy) -> Any:
    helper, numpy_helper, types = onnx.helper, onnx.numpy_helper, onnx.TensorProto
    constants = {"mean": policy.observation_mean, "std": policy.observation_std, **policy.params}
    nodes = [
        helper.make_node("Sub", ["observations", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["x0"]),
    ]

    def layer(name: str, x: str, y: str) -> None:
        nodes.append(helper.make_node("Gemm", [x, f"{name}.kernel", f"{name}.bias"], [y]))

    depth = len(policy.configuration["hidden_sizes"])
    for index, after in itertools.pairwise(range(depth + 1)):
        layer(f"hidden_{index}", f"x{index}", f"linear{index}")
        nodes.append(helper.make_node("Relu", [f"linear{index}"], [f"x{after}"]))
    if policy.configuration["dueling"]:
        layer("value", f"x{depth}", "v")
        layer("advantage", f"x{depth}", "a")
        nodes += [
            helper.make_node("ReduceMean", ["a"], ["a_mean"], axes=[1], keepdims=1),
            helper.make_node("Sub", ["a", "a_mean"], ["a_centred"]),
            helper.make_node("Add", ["v", "a_centred"], ["q_values"]),
        ]
    else:
        layer("q", f"x{depth}", "q_values")
    nodes.append(helper.make_node("ArgMax", ["q_values"], ["actions"], axis=1, keepdims=0))
    size = len(policy.observation_mean)
    graph = helper.make_graph(
        nodes,
        "jaxrl",
        [helper.make_tensor_value_info("observations", types.FLOAT, ["N", size])],
        [
            helper.make_tensor_value_info("q_values", types.FLOAT, ["N", policy.num_actions]),
            helper.make_tensor_value_info("actions", types.INT64, ["N"]),
        ],
        [numpy_helper.from_array(np.ascontiguousarray(v), name) for name, v in constants.items()],
    )
    opset = helper.make_opsetid("", _OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=_IR, producer_name="jaxrl")

"""``python -m jaxrl.export``: a saved policy as an ONNX file, or as an MLflow model.

A policy's own folder (``RUN_DIR/best/1``) can be taken away as it is: arrays as safetensors, a
description as JSON, and a loader that needs numpy. These are for other programs.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from jaxrl.command import Parser, print_result
from jaxrl.errors import InputError
from jaxrl.models import write_model
from jaxrl.onnx import write_onnx
from jaxrl.sources import add_source_options, policy_of


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m jaxrl.export", description=__doc__, allow_abbrev=False)
    add_source_options(parser)
    parser.add_argument(
        "--onnx", type=pathlib.Path, metavar="FILE", help="written, and checked to act the same"
    )
    parser.add_argument(
        "--model",
        type=pathlib.Path,
        metavar="FOLDER",
        help="an MLflow model: mlflow.pyfunc.load_model(FOLDER).predict(observations)",
    )
    return parser


def _export(args: argparse.Namespace) -> list[str]:
    if args.onnx is None and args.model is None:
        raise InputError("nothing to write: give --onnx FILE, --model FOLDER, or both.")
    if args.model is not None and args.model.exists():
        raise InputError(f"--model {args.model} exists; nothing in it was changed: give another.")
    policy, said = policy_of(args), []
    try:
        if args.onnx is not None:
            said.append(f"{args.onnx}: {write_onnx(policy, args.onnx)}")
        if args.model is not None:
            write_model(policy, args.model)
            said.append(f"{args.model}: mlflow.pyfunc.load_model({str(args.model)!r})")
    except OSError as error:
        raise InputError(f"{error.filename} cannot be written: {error.strerror}.") from None
    return said


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return print_result(lambda: "\n".join(_export(_parser().parse_args(argv))))


if __name__ == "__main__":
    sys.exit(main())

"""``python -m jaxrl.serve``: your own MLflow, reachable through a tunnel, open to nobody else."""

import argparse
import pathlib
import re
import sys
import urllib.parse
from collections.abc import Sequence
from typing import NoReturn

from jaxrl.command import Parser, say_error
from jaxrl.errors import InputError, ServeError
from jaxrl.lease import Lease
from jaxrl.server.accounts import NAME as ACCOUNTS
from jaxrl.server.interrupts import ignored, interruptible
from jaxrl.server.process import free_port
from jaxrl.server.reach import LOOPBACK, with_scheme
from jaxrl.server.service import Service

_OURS = {
    *(ACCOUNTS, "mlflow.db", "basic_auth.db", "basic_auth.ini", "artifacts", "server.log"),
    *("connection.txt", "ngrok-token.txt", "heartbeat.json"),
}
"""What a data directory holds."""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m jaxrl.serve", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--tunnel",
        choices=["ngrok", "none"],
        default="ngrok",
        help="how it is reached (%(default)s)",
    )
    parser.add_argument(
        "--dir",
        type=pathlib.Path,
        default=pathlib.Path("mlflow-data"),
        help="where everything is kept; used again the next time (%(default)s)",
    )
    parser.add_argument(
        "--port", type=int, default=5000, help="of this machine, or the next free one (%(default)s)"
    )
    parser.add_argument(
        "--domain",
        metavar="NAME",
        help="a reserved ngrok domain; with --tunnel none, the address of another tunnel or proxy",
    )
    parser.add_argument(
        "--host",
        default=LOOPBACK,
        help="with --tunnel none, the address to listen at: 0.0.0.0 for the local network "
        "(%(default)s)",
    )
    return parser


def _check(args: argparse.Namespace) -> None:
    """Refuses options that cannot be used, before anything is made."""
    if not 1 <= args.port <= 65535:
        raise InputError(f"--port {args.port}: give one of 1 to 65535.")
    if args.tunnel == "ngrok" and args.host != LOOPBACK:
        raise InputError("--host is for --tunnel none: ngrok's agent comes from this machine.")
    if args.host == "::":
        raise InputError("--host ::: give 0.0.0.0, or one address of this machine.")
    if args.domain is not None:
        parts = urllib.parse.urlsplit(with_scheme(args.domain))
        is_name = re.fullmatch(r"[\w.:-]+", parts.netloc) and not parts.path.strip("/")
        if not is_name or parts.query or parts.scheme not in ("http", "https"):
            raise InputError(
                f"--domain {args.domain}: give a name, such as my-name.ngrok-free.app."
            )
        if args.tunnel == "ngrok":
            args.domain = parts.hostname


def _data_directory(path: pathlib.Path) -> pathlib.Path:
    """The data directory at ``path``, made where there is none.

    Raises:
        InputError: it is something else.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = {item.name for item in path.iterdir()}
    except OSError as error:
        raise InputError(f"--dir {path} cannot be used: {error.strerror}.") from None
    if content and not content & {ACCOUNTS, "mlflow.db"}:
        raise InputError(f"--dir {path} holds other things: give a new or an empty one.")
    if content <= _OURS:
        path.chmod(0o700)
    return path


def _serve(args: argparse.Namespace) -> NoReturn:
    _check(args)
    free_port(args.host, args.port)  # an address that is not ours is said before anything is made
    directory = _data_directory(args.dir)
    lease = Lease(directory)
    try:
        service = Service(directory, args.host, args.port, args.tunnel == "ngrok", args.domain)
        try:
            service.start()
            service.watch()
        finally:
            with ignored():
                service.stop()
    finally:
        lease.release()


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0 where it was told to end."""
    try:
        with interruptible():
            _serve(_parser().parse_args(argv))
    except (InputError, ServeError) as error:
        return say_error(error)
    except KeyboardInterrupt:
        print("ended", flush=True)
        return 0


if __name__ == "__main__":
    sys.exit(main())

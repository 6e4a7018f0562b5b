"""Who may use the served MLflow: its owner, and the account that sweeps are given.

Passwords are generated once and kept in ``accounts.json`` in the data directory, which its owner
alone may read. They go to MLflow's server in its environment and its requests, never on a command
line or into a log.
"""

import dataclasses
import json
import pathlib
import secrets
import urllib.parse

from jaxrl.errors import InputError
from jaxrl.rundir import write_whole

NAME = "accounts.json"
SWEEP_USER = "jaxrl"
_PRIVATE = 0o600
_PASSWORD_BYTES = 24


@dataclasses.dataclass(frozen=True)
class Account:
    """A user of MLflow's basic authentication."""

    user: str
    password: str = dataclasses.field(repr=False)

    def url(self, address: str) -> str:
        """``address`` with this user and password in it: a connection string."""
        parts = urllib.parse.urlsplit(address)
        user, password = (urllib.parse.quote(text, safe="") for text in (self.user, self.password))
        return urllib.parse.urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.netloc}"))


@dataclasses.dataclass(frozen=True)
class Accounts:
    """The secrets of a data directory."""

    owner: Account
    """MLflow's administrator: sees everything."""
    sweep: Account
    """For sweeps elsewhere: makes experiments of its own, and sees no others."""
    secret_key: str = dataclasses.field(repr=False)
    """With which MLflow's server signs forms."""

    @classmethod
    def of(cls, directory: pathlib.Path) -> "Accounts":
        """Those of ``directory``, made where there are none.

        Raises:
            InputError: the file there cannot be read.
        """
        path = directory / NAME
        if not path.exists():
            made = cls(_generate("owner"), _generate(SWEEP_USER), secrets.token_hex(32))
            write_private(path, json.dumps(dataclasses.asdict(made), indent=2) + "\n")
            return made
        path.chmod(_PRIVATE)
        try:
            content = json.loads(path.read_text("utf-8"))
            owner, sweep = (Account(**content[name]) for name in ("owner", "sweep"))
            if sweep.user != SWEEP_USER:  # whose requests are looked at
                raise ValueError(sweep.user)
            return cls(owner, sweep, content["secret_key"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} cannot be read ({type(error).__name__}): restore it, or move it and "
                "basic_auth.db away for new passwords; runs are kept in mlflow.db."
            ) from None


def write_private(path: pathlib.Path, content: str) -> None:
    """Writes a file that its owner alone may read."""
    write_whole(path, content.encode(), mode=_PRIVATE)


def _generate(user: str) -> Account:
    return Account(user, secrets.token_urlsafe(_PASSWORD_BYTES))

"""Tracking addresses with a user and password in them: kept where MLflow looks, and nowhere else."""

import os
import urllib.parse

from jaxrl.errors import InputError

VARIABLE = "JAXRL_TRACKING_URI"
"""Where a connection string may be given, so that it is in no command line."""
_USER, _PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
_taken: dict[str, str] = {}
"""What was put into the environment here."""


def default_uri() -> str | None:
    """The tracking address that the environment gives."""
    given = os.environ.get(VARIABLE) or os.environ.get("MLFLOW_TRACKING_URI") or ""
    return given.strip().strip("'\"") or None  # notebooks keep the quotes


def take_credentials(uri: str) -> str:
    """``uri`` without the user and password of an HTTP address, which go where MLflow looks for
    them. Those of an address that was taken before are forgotten: they are not for this one.

    Raises:
        InputError: where the password ends cannot be told.
    """
    forget_credentials()
    try:
        parts = urllib.parse.urlsplit(uri)
    except ValueError:  # whose words quote it
        parts = None
    is_web = uri.startswith(("http://", "https://"))
    if parts is None or (is_web and _is_unclear(uri, parts)):
        raise InputError(
            "the tracking URI cannot be read: in its password, write %20 for a space, %23 for #, %2F "
            "for /, %3F for ? and %40 for @, and likewise what is not ASCII (it is not shown here)."
        )
    if parts.scheme not in ("http", "https") or "@" not in parts.netloc:
        return uri
    _taken[_USER] = urllib.parse.unquote(parts.username or "")
    _taken[_PASSWORD] = urllib.parse.unquote(parts.password or "")
    os.environ.update(_taken)
    return public_uri(uri)


def _is_unclear(uri: str, parts: urllib.parse.SplitResult) -> bool:
    """Whether an address holds a space, or a password that its host seems to begin in."""
    try:
        has_port = parts.port is not None or not parts.netloc.endswith(":")
    except ValueError:
        has_port = False
    return any(map(str.isspace, uri)) or (not has_port and "@" in uri)


def forget_credentials() -> None:
    """Removes from the environment what was put there."""
    for name, value in _taken.items():
        if os.environ.get(name) == value:
            del os.environ[name]
    _taken.clear()


def user() -> str | None:
    """Who MLflow's client logs in as."""
    return os.environ.get(_USER)


def public_uri(uri: str) -> str:
    """``uri`` without user and password, also of a database's options."""
    parts = urllib.parse.urlsplit(uri)
    options = parts.query.split("&") if parts.query else []
    kept = [option for option in options if "password" not in option.partition("=")[0].lower()]
    if "@" not in parts.netloc and kept == options:
        return uri
    netloc, query = parts.netloc.rpartition("@")[2], "&".join(kept)
    return urllib.parse.urlunsplit(parts._replace(netloc=netloc, query=query))

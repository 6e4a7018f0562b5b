"""What the commands share."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from jaxrl.errors import InputError, without_secrets


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (--help lists the options)")


def print_result(action: Callable[[], str]) -> int:
    """Prints what ``action`` gives, or why it gives nothing; a command's exit code."""
    try:
        print(action())
    except InputError as error:
        return say_error(error)
    except KeyboardInterrupt:
        return 130
    return 0


def say_error(error: Exception) -> int:
    """Prints the one line of an error; the exit code that goes with it."""
    print(f"error: {without_secrets(str(error))}", file=sys.stderr)
    return 2 if isinstance(error, InputError) else 1

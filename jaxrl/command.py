"""What the commands share."""

import argparse
import sys
from typing import NoReturn

from jaxrl.errors import InputError, without_secrets


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (--help lists the options)")


def say_error(error: Exception) -> int:
    """Prints the one line of an error; the exit code that goes with it."""
    print(f"error: {without_secrets(str(error))}", file=sys.stderr)
    return 2 if isinstance(error, InputError) else 1

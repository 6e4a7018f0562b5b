"""What the commands share."""

import argparse
from typing import NoReturn

from jaxrl.errors import InputError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (--help lists the options)")

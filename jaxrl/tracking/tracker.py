"""What a tracker is: the contract that the follower relies on.

A tracker shows a sweep to people: a parent run, and a run for each configuration. It is fed by one
thread at a time, in the order of the journal, and:

* :meth:`Tracker.apply` makes one run as its update says, the parent first. When it returns, the
  update is kept. When it raises, all, some or nothing of it may be kept, and the same update may be
  applied again, also by another process: that changes nothing that was kept. Points have the
  journal's steps and times for that reason.
* ``TrackerError`` means that it was refused for good and that other updates would be too. Anything
  else may pass, and is tried again. A run that is gone (deleted by its owner) is no error: it is left
  alone from then on, and said in ``notes``.
* :attr:`Tracker.state` is what another process needs to go on: JSON, without a secret. It is read
  after an ``apply`` and given to the next tracker's :meth:`Tracker.go_on`, before anything else is
  asked of it. It may be older than what was applied, and may be empty.
* :meth:`Tracker.attach` keeps a file with the parent run; a second time it replaces the first.
* :meth:`Tracker.keep` does so with a policy, as a model to be used, and where it has a registry of such
  models registers it there under a name; the address that it then has.
* ``requests`` counts what was sent over a network, tries included.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from jaxrl.loader import Policy
from jaxrl.tracking.projection import RunUpdate


class TrackerError(RuntimeError):
    """A tracker refused something for good; trying again would not help."""


class Tracker(Protocol):
    """See the module."""

    uri: str
    """Where it is, without a secret."""
    requests: int

    @property
    def notes(self) -> Sequence[str]:
        """What a user should know, a line each."""

    @property
    def state(self) -> dict[str, Any]: ...

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Says that the sweep has been here before."""

    def connect(self) -> Sequence[str]:
        """Makes sure that it can be used; lines that say what was found.

        Raises:
            InputError: it cannot, with what to do.
        """

    def apply(self, update: RunUpdate) -> None: ...

    def attach(self, path: pathlib.Path) -> None: ...

    def keep(self, policy: Policy, name: str | None) -> str | None: ...

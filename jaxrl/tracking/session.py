"""A run directory and a tracker, put together: what a sweep and ``jaxrl.sync`` have in common."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable

from rich.console import Console

from jaxrl.errors import InputError
from jaxrl.policy import load_policy
from jaxrl.rundir import RunDirectory
from jaxrl.tracking.budget import Budget, default_requests_per_hour
from jaxrl.tracking.credentials import default_uri
from jaxrl.tracking.delivery import Delivery, last_track, last_uri
from jaxrl.tracking.follower import Follower
from jaxrl.tracking.lines_tracker import ConsoleTracker, JsonLinesTracker
from jaxrl.tracking.mlflow_tracker import MlflowTracker
from jaxrl.tracking.projection import Description, Projection
from jaxrl.tracking.selection import Choice, Selection
from jaxrl.tracking.tracker import Tracker

_LINE_SECONDS = 10.0
_PATIENCE_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Tracking:
    """How a sweep is tracked."""

    uri: str | None = None
    """MLflow's, or ``jsonl:FILE``, or ``console:``; None for where it went before, or MLflow's own."""
    track: str | None = None
    """Which configurations get a run: ``all``, ``top:N`` or ``parent``; None for what was said
    before, or all."""
    requests_per_hour: int | None = None
    """None for what the address suggests."""
    register: str | None = None
    """The name under which the winner becomes a model of MLflow's registry; None for none."""


def open_tracker(uri: str | None, description: Description) -> Tracker:
    """The tracker at ``uri``, or where the environment says, not yet connected.

    Raises:
        InputError: no tracker has such an address.
    """
    uri = uri or default_uri()
    if uri is not None and uri.startswith("jsonl:"):
        if not (name := uri.removeprefix("jsonl:")):
            raise InputError("--tracking-uri jsonl: lacks the file: write jsonl:FILE.")
        return JsonLinesTracker(pathlib.Path(name).absolute())
    if uri == "console:":
        return ConsoleTracker(Console())
    return MlflowTracker(uri, description)


class Session:
    """The follower of a run directory on its way to a tracker."""

    def __init__(self, tracker: Tracker, description: Description, tracking: Tracking) -> None:
        self.tracker = tracker
        per_hour = tracking.requests_per_hour or default_requests_per_hour(tracker.uri)
        self._budget = Budget(per_hour)
        if tracking.register is not None and description.params.get("network") is not None:
            raise InputError("--register keeps models with jaxrl's own networks: leave it out.")
        self._track = tracking.track
        self._register = tracking.register
        self.registered: str | None = None
        """The address of the winner in the registry."""
        self._description = description
        self.per_hour = per_hour
        self.follower: Follower

    def start(self, directory: RunDirectory, is_new: bool) -> None:
        """Follows the journal of ``directory`` from where this tracker's record says."""
        self._directory = directory
        delivery = Delivery(directory.path, self.tracker.uri)
        if not is_new:
            self.tracker.go_on(delivery.state)
        delivery.track = self._track or delivery.track or last_track(directory.path) or "all"
        delivery.write()
        choice = Choice.parse(delivery.track, is_sparse=self._budget.is_limited)
        self.follower = Follower(
            directory.journal,
            Projection(self._description),
            self.tracker,
            selection=Selection(choice),
            budget=self._budget,
            delivery=delivery,
        )
        self.follower.start()

    def estimate(self) -> str:
        """About how many requests the sweep takes, for people."""
        choice = Choice.parse(self._track or "all", is_sparse=self._budget.is_limited)
        ends, live = choice.requests(len(self._description.configurations))
        limit = f" of {self.per_hour:,} an hour" if self.per_hour else ""
        return f"about {ends:,} requests{limit}, and {live:,} each time that live curves are sent"

    def send_all(self, say: Callable[[str], None]) -> bool:
        """Sends what there is to send, however long it takes, but for a server that does not answer for
        a minute; whether everything has arrived."""
        patience = _PATIENCE_SECONDS
        while patience > 0 and not self.follower.wait(_LINE_SECONDS):
            trouble = self.follower.trouble
            say(f"{self.tracker.requests:,} requests; {trouble or 'going on'}")
            patience = patience - _LINE_SECONDS if trouble else _PATIENCE_SECONDS
        return self.finish(_LINE_SECONDS)

    def finish(self, timeout: float) -> bool:
        """Drains the follower, attaches the results and the winner; whether everything has arrived."""
        if not self.follower.finish(timeout):
            return False
        try:
            for path in self._directory.attachments:
                self.tracker.attach(path)
            network = self._description.params.get("network")
            if network is None and (winner := self._directory.best / "1").exists():
                self.registered = self.tracker.keep(load_policy(winner), self._register)
        except Exception:  # whatever the client raises: the files are in the run directory
            return False
        return True


def address(given: str | None, directory: pathlib.Path) -> str | None:
    """Where to track what goes on in ``directory``: as ``given``, or as the environment says, or
    where it was tracked before; None where it was not."""
    with contextlib.suppress(OSError):
        return given or default_uri() or last_uri(directory)
    return None

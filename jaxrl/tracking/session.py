"""A run directory and a tracker, put together: what a sweep and ``jaxrl.sync`` have in common."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable

from rich.console import Console

from jaxrl.errors import InputError
from jaxrl.policy import load_policy
from jaxrl.rundir import RunDirectory
from jaxrl.tracking.budget import Budget, default_requests_per_hour
from jaxrl.tracking.credentials import VARIABLE, default_uri
from jaxrl.tracking.delivery import Delivery, last_track, last_uri
from jaxrl.tracking.follower import Follower
from jaxrl.tracking.lines_tracker import ConsoleTracker, JsonLinesTracker
from jaxrl.tracking.mlflow_tracker import MlflowTracker
from jaxrl.tracking.preflight import explain
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

    def __post_init__(self) -> None:
        if self.track is not None:
            Choice.parse(self.track)
        if (per_hour := self.requests_per_hour) is not None and per_hour < 1:
            raise InputError(f"--tracker-requests-per-hour {per_hour}: give 1 or more.")
        if (name := self.register) is None:
            return
        if not name.strip() or set(name) & set("/:@"):
            raise InputError(f"--register {name!r}: give a name without /, : and @.")
        if (uri := self.uri or default_uri() or "").startswith(("jsonl:", "console:")):
            raise InputError(f"--register needs MLflow, and {uri} is none.")


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
        self._trouble: str | None = None
        self.registered: str | None = None
        """The address of the winner in the registry."""
        self._description = description
        self.per_hour = per_hour
        self.follower: Follower

    def start(self, directory: RunDirectory, is_new: bool) -> None:
        """Follows the journal of ``directory`` from where this tracker's record says."""
        self._directory = directory
        self._delivery = delivery = Delivery(directory.path, self.tracker.uri)
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
        """About how many requests the sweep takes, for people; once it is started."""
        choice = Choice.parse(self._delivery.track or "all", is_sparse=self._budget.is_limited)
        known = len(self._description.configurations)
        configs = max(known, int(self._description.params.get("configs") or 0))
        about = "at least" if self._description.params.get("budget_seconds") else "about"
        ends, live = choice.requests(configs)
        limit = f" of {self.per_hour:,} an hour" if self.per_hour else ""
        return f"{about} {ends:,} requests{limit}, and {live:,} each time that live curves are sent"

    @property
    def trouble(self) -> str | None:
        """Why not everything has arrived, as far as that is known."""
        return self._trouble or self.follower.trouble

    def send_all(self, say: Callable[[str], None]) -> bool:
        """Sends what there is to send, however long it takes, but for a server that does not answer for
        a minute; whether everything has arrived."""
        patience = _PATIENCE_SECONDS
        while patience > 0 and not self.follower.wait(_LINE_SECONDS):
            trouble = self.follower.trouble
            say(f"{self.tracker.requests:,} requests; {trouble or 'going on'}")
            patience = patience - _LINE_SECONDS if trouble else _PATIENCE_SECONDS
        return self.finish(_LINE_SECONDS)

    def finish(self, timeout: float, may_register: bool = True) -> bool:
        """Drains the follower, attaches the results and the winner; whether everything has arrived."""
        if not self.follower.finish(timeout):
            return False
        try:
            for path in self._directory.attachments:
                self.tracker.attach(path)
            network = self._description.params.get("network")
            if network is None and (winner := self._directory.best / "1").exists():
                name = self._register if may_register else None
                self.registered = self.tracker.keep(load_policy(winner), name)
        except Exception as error:  # whatever the client raises: the files are in the run directory
            self._trouble = explain(error, self.tracker.uri)
            return False
        return True


def address(given: str | None, directory: pathlib.Path) -> str | None:
    """Where to track what goes on in ``directory``: as ``given``, or as ``JAXRL_TRACKING_URI`` says
    (a tunnel may have another name now), or where it was tracked before, or as MLflow's own variable
    says; None where nothing does."""
    last = None
    with contextlib.suppress(OSError):
        last = last_uri(directory)
    return given or os.environ.get(VARIABLE) or last or default_uri()

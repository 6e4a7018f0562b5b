"""Which configurations get a run of their own, and when.

Sending every configuration's every evaluation costs a request each. Where requests are few, the
parent and the best configurations are shown live, and the others are sent once, when they have
finished. What is held back is kept small: 32 bytes a point.
"""

import array
import dataclasses
import math
import re
from collections.abc import Iterable, Iterator

from jaxrl.errors import InputError
from jaxrl.tracking.projection import FINAL_METRICS, METRICS, Metric, RunUpdate

LIVE = 32
"""Configurations that are shown live where requests are few."""
REQUESTS_PER_RUN = 3
"""To create one, to send one batch and to end it."""
_SCORES = (METRICS["eval_return_mean"], FINAL_METRICS["last_mean"])


@dataclasses.dataclass(frozen=True)
class Choice:
    """What ``--track`` says, and whether requests are few."""

    kind: str
    """``all``, ``top`` or ``parent``."""
    top: int = 0
    is_sparse: bool = False

    @classmethod
    def parse(cls, text: str, is_sparse: bool = False) -> "Choice":
        """Raises ``InputError`` where ``text`` is neither all, top:N nor parent."""
        if text in ("all", "parent"):
            return cls(text, is_sparse=is_sparse)
        if match := re.fullmatch(r"top:([1-9]\d{0,8})", text):
            return cls("top", int(match[1]), is_sparse)
        raise InputError(f"--track {text}: give all, top:N (the N best) or parent (none).")

    def requests(self, configs: int) -> tuple[int, int]:
        """About how many requests a sweep of ``configs`` takes at its ends, and each time that what
        is live is sent."""
        runs = {"all": configs, "top": min(self.top, configs), "parent": 0}[self.kind]
        live = 0 if self.kind != "all" else min(configs, LIVE) if self.is_sparse else configs
        return REQUESTS_PER_RUN * (runs + 1) + 4, live + 1


class Selection:
    """Holds updates back, or lets them pass."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._held: dict[int, _Held] = {}
        self._keys: dict[str, int] = {}
        """Numbers for the names of metrics."""
        self._scores: dict[int, float] = {}
        self._is_over = False

    def pass_on(self, updates: Iterable[RunUpdate]) -> Iterator[RunUpdate]:
        """Those of ``updates``, and of what was held back, that are to be sent now; the parent's
        as they come."""
        if self._choice.kind == "all" and not self._choice.is_sparse:
            yield from updates
            return
        ready: dict[int, None] = {}
        for update in updates:
            self.note(update)
            if update.config is None:
                yield update
            else:
                self._hold(update.config, update)
                if self._choice.kind == "all" and update.status is not None:
                    ready[update.config] = None
        for config in (*ready, *self._chosen()):
            if config in self._held:
                yield self._held.pop(config).release()

    def note(self, update: RunUpdate) -> None:
        """Hears of an update, which may have been sent before."""
        if update.config is None:
            if update.status is not None:
                self._is_over = update.status != "RUNNING"
            return
        for metric in update.metrics:
            if metric.key in _SCORES:
                self._scores[update.config] = metric.value

    def _hold(self, config: int, update: RunUpdate) -> None:
        if config in self._held:
            self._held[config].add(update)
        else:
            self._held[config] = _Held(update, self._keys)

    def _chosen(self) -> list[int]:
        """Configurations whose updates are to be held no longer, whatever they say."""
        kind = self._choice.kind
        if kind == "parent":
            self._held.clear()
            return []
        if kind == "all":
            return list(self._held) if self._is_over else self._best(LIVE)
        return self._best(self._choice.top) if self._is_over else []

    def _best(self, count: int) -> list[int]:
        return sorted(self._scores, key=lambda config: (-self._scores[config], config))[:count]


class _Held:
    """Updates of one run, merged."""

    def __init__(self, update: RunUpdate, keys: dict[str, int]) -> None:
        self._keys = keys
        self._points = array.array("d")
        self._take_points(update)
        self._update = dataclasses.replace(update, metrics=[])

    def add(self, later: RunUpdate) -> None:
        self._take_points(later)
        self._update.merge(dataclasses.replace(later, metrics=[]))

    def release(self) -> RunUpdate:
        """All of it as one update."""
        points = [self._points[i : i + 4] for i in range(0, len(self._points), 4)]
        keys = list(self._keys)
        self._update.metrics = [
            Metric(keys[int(key)], value, int(time), int(step)) for key, value, time, step in points
        ]
        return self._update

    def _take_points(self, update: RunUpdate) -> None:
        for metric in update.metrics:
            assert math.isfinite(metric.value)
            key = self._keys.setdefault(metric.key, len(self._keys))
            self._points.extend((key, metric.value, metric.time, metric.step))

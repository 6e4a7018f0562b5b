"""How many requests a tracker is sent."""

import time
import urllib.parse
from collections import deque

NGROK_REQUESTS_PER_HOUR = 5_000
"""By default through ngrok, whose free plan allows 20,000 a month."""
_HOUR = 3600.0
_FIRST_PAUSE = 5.0
_PAUSE_SHARE = 0.3


def default_requests_per_hour(uri: str) -> int | None:
    """What a tracking URI suggests: no limit, but through ngrok."""
    host = urllib.parse.urlsplit(uri).hostname or ""
    is_ngrok = host.endswith((".ngrok-free.app", ".ngrok-free.dev", ".ngrok.app", ".ngrok.io"))
    return NGROK_REQUESTS_PER_HOUR if is_ngrok or host.endswith(".ngrok.dev") else None


class Budget:
    """At most ``per_hour`` requests in any hour; no limit where it is None."""

    def __init__(self, per_hour: int | None) -> None:
        self._per_hour = per_hour
        self._spent: deque[tuple[float, int]] = deque()
        self._began = time.monotonic()

    @property
    def is_limited(self) -> bool:
        return self._per_hour is not None

    def spend(self, requests: int) -> None:
        if requests and self.is_limited:
            self._spent.append((time.monotonic(), requests))

    def seconds_until_free(self) -> float:
        """How long to wait before the next request."""
        if self._per_hour is None:
            return 0.0
        now = time.monotonic()
        while self._spent and self._spent[0][0] <= now - _HOUR:
            self._spent.popleft()
        if sum(requests for _, requests in self._spent) < self._per_hour:
            return 0.0
        return self._spent[0][0] + _HOUR - now

    def pause(self, shortest: float) -> float:
        """Seconds until live curves are sent again: where requests are few, three tenths of the
        time so far, so that their number grows with the logarithm of time."""
        if not self.is_limited:
            return shortest
        return max(shortest, _FIRST_PAUSE, _PAUSE_SHARE * (time.monotonic() - self._began))

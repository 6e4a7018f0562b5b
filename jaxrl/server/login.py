"""Inside MLflow's server: its basic authentication, with a brake on wrong passwords.

MLflow's server imports this module by the name in its configuration (``authorization_function``), calls
:func:`authenticate` for every request to something that is not open, and lets pass whoever it returns.
"""

import collections
import hmac
import secrets
import threading
import time

from flask import Response, make_response, request
from mlflow.server.auth import authenticate_request_basic_auth, make_basic_auth_response
from werkzeug.datastructures import Authorization

from jaxrl.server.accounts import SWEEP_USER
from jaxrl.server.permits import is_for_nobody, is_for_sweeps

FREE_TRIES = 10
"""Wrong passwords in a row that are only refused."""
SECONDS_A_TRY = 5.0
"""After those, one more is looked at every so many seconds."""
_MOST_KNOWN = 1000


class Brake:
    """A bucket of tries that wrong passwords empty and time fills.

    It is one for all who call: through a tunnel every caller has the same address, and who is behind
    it is only what the request says. Whoever has logged in once is not held up by it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key = secrets.token_bytes(32)
        self._known: collections.OrderedDict[bytes, None] = collections.OrderedDict()
        self._tries = float(FREE_TRIES)
        self._filled = time.monotonic()

    def seconds_to_wait(self, login: Authorization) -> float:
        """How long this login must wait before it is looked at."""
        with self._lock:
            if self._digest(login) in self._known:
                return 0.0
            now = time.monotonic()
            filled = self._tries + (now - self._filled) / SECONDS_A_TRY
            self._tries, self._filled = min(float(FREE_TRIES), filled), now
            return max(0.0, 1 - self._tries) * SECONDS_A_TRY

    def right(self, login: Authorization) -> None:
        """Says that a login was right."""
        digest = self._digest(login)
        with self._lock:
            self._known[digest] = None
            self._known.move_to_end(digest)
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)

    def wrong(self, login: Authorization) -> None:
        """Says that it was wrong, also where it was right before (a changed password)."""
        with self._lock:
            self._known.pop(self._digest(login), None)
            self._tries -= 1

    def _digest(self, login: Authorization) -> bytes:
        text = f"{login.username}\0{login.password}".encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, text, "sha256")


_brake = Brake()


def authenticate() -> Authorization | Response:
    """Who sends the current request, or the answer that turns it away: 401, 403 for what this account
    is not for, or 429 after many wrong passwords."""
    login = request.authorization
    answer: Authorization | Response
    if login is None or login.type != "basic":
        return make_basic_auth_response()
    if wait := _brake.seconds_to_wait(login):
        answer = make_response("Too many wrong passwords. Try again later.", 429)
        answer.headers["Retry-After"] = str(int(wait) + 1)
        return answer
    answer = authenticate_request_basic_auth()
    if not isinstance(answer, Authorization):
        _brake.wrong(login)
        return answer
    _brake.right(login)
    is_sweep = answer.username == SWEEP_USER
    if is_for_nobody(request.path) or (
        is_sweep and not is_for_sweeps(request.method, request.path, request.get_data())
    ):
        return make_response("Permission denied: this account is not for that.", 403)
    return answer

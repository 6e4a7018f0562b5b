"""The server and its tunnel together: opened, watched over, and ended in the right order."""

import getpass
import os
import pathlib
import sys
import time
from typing import NoReturn

from jaxrl.errors import InputError, ServeError
from jaxrl.ngrok_errors import TOKEN_PAGE
from jaxrl.server.accounts import NAME as ACCOUNTS
from jaxrl.server.accounts import Accounts, write_private
from jaxrl.server.interrupts import check
from jaxrl.server.process import MlflowServer, free_port
from jaxrl.server.reach import LOOPBACK, Reach, with_scheme
from jaxrl.tunnel import TOKEN_VARIABLE, NgrokTunnel, has_configured_token

CONNECTION = "connection.txt"
_TOKEN = "ngrok-token.txt"
_WATCH_SECONDS = 2.0
_LONGEST_PAUSE = 300.0


class _Token:
    """The ngrok account's token: from the environment, from the data directory, from ngrok's own
    configuration, or asked for and then kept in the data directory."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._path = directory / _TOKEN
        self._asked: str | None = None

    def get(self) -> str | None:
        """None where ngrok's own configuration has it.

        Raises:
            InputError: there is none.
        """
        if given := os.environ.get(TOKEN_VARIABLE):
            return given
        if self._path.exists():
            return self._path.read_text("utf-8").strip()
        if has_configured_token():
            return None
        if sys.stdin.isatty():
            self._asked = getpass.getpass(f"ngrok's token, from {TOKEN_PAGE} (not shown): ").strip()
        if not self._asked:
            raise InputError(
                f"ngrok needs your account's token: copy it from {TOKEN_PAGE} (an account is free) "
                f"into {TOKEN_VARIABLE}, or give --tunnel none."
            )
        return self._asked

    def has_worked(self) -> None:
        if self._asked:
            write_private(self._path, self._asked + "\n")

    def was_refused(self, error: ServeError) -> None:
        if "ERR_NGROK_105" in str(error) or "ERR_NGROK_107" in str(error):
            self._path.unlink(missing_ok=True)


class Service:
    """A server that keeps its data in ``directory``.

    Args:
        host: the address that it listens at.
        port: of this machine; the next free one where it is taken.
        is_tunnelled: whether through ngrok.
        domain: ngrok's, or the address of another tunnel; None for what ngrok gives, or for the
            addresses of this machine.

    Raises:
        InputError: something of it cannot be used.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        host: str,
        port: int,
        is_tunnelled: bool,
        domain: str | None,
    ) -> None:
        self._directory = directory
        self._host = host
        self._domain = domain
        self._port = free_port(host, port)
        if self._port != port:
            _say(f"port {port} is taken: using {self._port}")
        self._accounts = Accounts.of(directory)
        self._server = MlflowServer(directory, self._accounts, self._port, host)
        self._token = _Token(directory)
        self._tunnel = NgrokTunnel(self._port, domain) if is_tunnelled else None

    def start(self) -> None:
        """Opens the tunnel, then starts the server, which then knows its name."""
        reach = self._reach()
        _say(f"starting MLflow {self._server.version}")
        self._server.start(reach.names, reach.origins)
        self._announce(reach.address)

    def watch(self) -> NoReturn:
        """Keeps the tunnel open until something is beyond help."""
        while True:
            time.sleep(_WATCH_SECONDS)
            check()
            self._look_after_server()
            if self._tunnel is not None and not self._tunnel.is_open:
                self._reopen(self._tunnel)

    def stop(self) -> None:
        """Closes the tunnel, then ends the server."""
        if self._tunnel is not None:
            self._tunnel.close()
        self._server.stop()

    def _reach(self) -> Reach:
        if self._tunnel is not None:
            return Reach.by_address(self._open(self._tunnel))
        if self._domain is not None:
            return Reach.by_address(with_scheme(self._domain))
        return Reach.by_network(self._host, self._port)

    def _open(self, tunnel: NgrokTunnel) -> str:
        try:
            url = tunnel.open(self._token.get)
        except ServeError as error:
            self._token.was_refused(error)
            raise
        self._token.has_worked()
        if tunnel.is_borrowed:
            _say(f"using the tunnel that is open already: {url}")
        return url

    def _look_after_server(self) -> None:
        if not self._server.is_running:
            raise ServeError(
                f"MLflow has ended: {self._server.last_words()} (see {self._server.log})."
            )

    def _reopen(self, tunnel: NgrokTunnel) -> None:
        """Opens the tunnel again, however long that takes."""
        before, pause, said = tunnel.url, _WATCH_SECONDS, ""
        _say("the tunnel is gone: opening it again")
        while True:
            check()
            tunnel.close()
            try:
                url = self._open(tunnel)
                break
            except ServeError as error:
                if str(error) != said:
                    said = str(error)
                    _say(f"{said} Trying again.")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            self._look_after_server()
        if url == before:
            _say("the tunnel is open again")
            return
        _say("the tunnel has another address now; the old one is dead")
        self._server.stop()
        reach = Reach.by_address(url)
        self._server.start(reach.names, reach.origins)
        self._announce(reach.address)

    def _announce(self, address: str) -> None:
        path = self._directory / CONNECTION
        connection = self._accounts.sweep.url(address)
        write_private(path, connection + "\n")
        owner = self._accounts.owner
        is_seen = sys.stdout.isatty()
        password = owner.password if is_seen else f"in {self._directory / ACCOUNTS}"
        _say(f"everything is kept in {self._directory}")
        _say(f"dashboard: {self._server.local_address} (user {owner.user}, password {password})")
        if address != self._server.local_address:
            _say(f"reachable at {address}; look at the dashboard here, a visit is some 60 requests")
        if address.startswith("http://") and self._host != LOOPBACK:
            _say("warning: passwords cross the network unencrypted: only where you trust it")
        use = "for --tracking-uri, JAXRL_TRACKING_URI or the notebook"
        _say(f"connection string, {use} (it holds a password): {connection if is_seen else path}")
        _say("Ctrl-C ends it; started again with the same --dir, it goes on")


def _say(text: str) -> None:
    print(text, flush=True)

"""A tunnel from the internet to a port of this machine, through ngrok."""

import contextlib
import logging
import os
import pathlib
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import requests
import yaml
from pyngrok import conf, ngrok, process
from pyngrok.exception import PyngrokError, PyngrokNgrokHTTPError, PyngrokNgrokInstallError

from jaxrl import child
from jaxrl.errors import ServeError, brief
from jaxrl.ngrok_errors import explain

TOKEN_VARIABLE = "NGROK_AUTHTOKEN"
_NAME = "jaxrl"
_START_SECONDS = 30
_OPEN_SECONDS = 15.0
_ANSWER_SECONDS = 5.0
_FIRST_PAGE = "127.0.0.1:4040"
_PAGES = 3
"""Agents take the next port where one is occupied; so many are looked at."""


def has_configured_token() -> bool:
    """Whether ngrok's own configuration holds a token."""
    return bool(_agent_configuration().get("authtoken"))


class NgrokTunnel:
    """A tunnel to ``port`` of this machine's loopback.

    Args:
        domain: a reserved name; None for the one that ngrok gives.
    """

    def __init__(self, port: int, domain: str | None = None) -> None:
        self._port = port
        self._domain = domain
        self._configuration = conf.PyngrokConfig(
            startup_timeout=_START_SECONDS, request_timeout=_OPEN_SECONDS, start_new_session=True
        )
        self._configuration.auth_token = None
        logging.getLogger("pyngrok").setLevel(logging.CRITICAL + 1)  # its errors quote the token
        self.url: str | None = None
        self.is_borrowed = False
        """Whether it was open already, by an agent that is not ours."""
        self._executioner: child.Executioner | None = None

    def open(self, token: Callable[[], str | None]) -> str:
        """Opens it, or takes the one that is open already; its address.

        Args:
            token: gives the one of the ngrok account, where it is needed; None where ngrok's own
                configuration has it.

        Raises:
            ServeError: ngrok refuses, in a line with what helps; nothing is left running.
        """
        self.url = self._find(_pages())
        self.is_borrowed = self.url is not None
        if self.url is None:
            try:
                self.url = self._connect(token())
            except BaseException:
                self.close()
                raise
        return self.url

    @property
    def is_open(self) -> bool:
        """Whether an agent of this machine still has it open."""
        pages = _pages() if self.is_borrowed else self._own_page()
        return self.url is not None and self._find(pages) == self.url

    def close(self) -> None:
        """Closes it and ends its agent, if that is ours."""
        self.url = None
        if self._executioner is not None:
            self._executioner.dismiss()
            self._executioner = None
        if not self.is_borrowed:
            ngrok.kill(self._configuration)
            self._kill_agent()  # also one of which pyngrok was interrupted before it knew

    def _find(self, pages: list[str]) -> str | None:
        """The address of a tunnel to our port, with our domain, that one of the agents has open."""
        for url, target in sorted(_tunnels(pages), reverse=True):  # https before http
            upstream, public = urllib.parse.urlsplit(target), urllib.parse.urlsplit(url)
            is_web = public.scheme in ("https", "http")
            is_here = upstream.hostname in ("localhost", "127.0.0.1", "::1")
            is_named = self._domain in (None, public.hostname)
            if is_web and is_here and is_named and upstream.port == self._port:
                return url
        return None

    def _own_page(self) -> list[str]:
        if not process.is_process_running(self._configuration.ngrok_path):
            return []
        page = process.get_process(self._configuration).api_url
        return [page] if page else []

    def _connect(self, token: str | None) -> str:
        if token is not None:  # the agent looks there; on its command line others could read it
            os.environ[TOKEN_VARIABLE] = token
        options: dict[str, Any] = {"inspect": False}  # the agent's page would show passwords
        if self._domain is not None:
            options["url"] = f"https://{self._domain}"
        try:
            ngrok.install_ngrok(self._configuration)
            began = time.monotonic()
            try:
                tunnel = self._start(options)
            except PyngrokError as error:
                if not _is_mute(error) or time.monotonic() - began >= _START_SECONDS:
                    raise
                # pyngrok can miss the last words of an agent that ends at once.
                tunnel = self._start(options)
        except PyngrokNgrokInstallError as error:
            raise ServeError(
                f"ngrok's agent could not be fetched ({brief(error)}): install it from "
                "https://ngrok.com/download and set PYNGROK_NGROK_PATH to it."
            ) from None
        except (PyngrokError, OSError) as error:
            raise ServeError(f"ngrok: {_reason(error)}.") from None
        agent = process.get_process(self._configuration).proc
        self._executioner = child.Executioner(agent.pid)
        assert tunnel.public_url is not None  # pyngrok raises where it is
        return tunnel.public_url

    def _start(self, options: dict[str, Any]) -> ngrok.NgrokTunnel:
        address = f"http://127.0.0.1:{self._port}"
        with self._end_of_silence():
            return ngrok.connect(address, name=_NAME, pyngrok_config=self._configuration, **options)

    @contextlib.contextmanager
    def _end_of_silence(self) -> Iterator[None]:
        """Ends an agent that says nothing while it starts, for which pyngrok would wait for ever."""
        timer = threading.Timer(_START_SECONDS, self._kill_agent)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _kill_agent(self) -> None:
        for started in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                if self._configuration.ngrok_path in started.cmdline():
                    started.kill()


def _reason(error: Exception) -> str:
    """Why ngrok failed, without its own words, which quote the token, where it gave a code."""
    words = [str(error), str(getattr(error, "ngrok_error", "")), getattr(error, "body", "")]
    if known := explain(" ".join(words)):
        return known
    if isinstance(error, PyngrokNgrokHTTPError) and error.status_code == 404:
        return "its agent is too old: run `pyngrok update`"
    if _is_mute(error):
        return (
            "its agent did not connect: look whether the network lets it, and run `pyngrok update` "
            "where it is old"
        )
    return brief(error)


def _is_mute(error: Exception) -> bool:
    """Whether pyngrok does not know why its agent did not start."""
    return isinstance(error, PyngrokError) and "unable to start" in str(error)


def _agent_configuration() -> dict[str, Any]:
    """The agent's settings in ngrok's configuration file; empty where there is none."""
    path = pathlib.Path(conf.get_config_path(conf.get_default()))
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    settings = content.get("agent", content) if isinstance(content, dict) else {}
    return settings if isinstance(settings, dict) else {}


def _pages() -> list[str]:
    """Where agents of this machine answer, if there are any."""
    address = str(_agent_configuration().get("web_addr") or _FIRST_PAGE)
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return []
    return [f"http://{host or '127.0.0.1'}:{int(port) + number}" for number in range(_PAGES)]


def _tunnels(pages: list[str]) -> Iterator[tuple[str, str]]:
    """The address and the target of every tunnel that the agents have open."""
    for page in pages:
        for kind in ("endpoints", "tunnels"):  # newer agents, older ones
            try:
                answer = requests.get(f"{page}/api/{kind}", timeout=_ANSWER_SECONDS)
                items = answer.json()[kind] if answer.ok else []
                for item in items:
                    target = (
                        item["upstream"]["url"] if "upstream" in item else item["config"]["addr"]
                    )
                    target = f"localhost:{target}" if str(target).isdigit() else target
                    yield (
                        item.get("url") or item["public_url"],
                        target if "://" in target else f"http://{target}",
                    )
            except (requests.RequestException, ValueError, KeyError, TypeError):
                continue  # none, or something else answers there

"""Where a server is reached, and which names requests to it may have."""

import contextlib
import dataclasses
import socket
import urllib.parse

import psutil

LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"


def with_scheme(domain: str) -> str:
    """``domain`` as an address, HTTPS where it does not say."""
    return domain if "://" in domain else f"https://{domain}"


@dataclasses.dataclass(frozen=True)
class Reach:
    """How the server is reached from elsewhere."""

    address: str
    names: tuple[str, ...] = ()
    """Every Host header that is let in, beside the loopback's."""
    origins: tuple[str, ...] = ()

    @classmethod
    def by_address(cls, address: str) -> "Reach":
        """By one public address only."""
        address = address.rstrip("/")
        return cls(address, (urllib.parse.urlsplit(address).netloc,), (address,))

    @classmethod
    def by_network(cls, host: str, port: int) -> "Reach":
        """By the addresses of this machine."""
        if host == LOOPBACK:
            return cls(f"http://{host}:{port}")
        hosts = _own_addresses() if host == EVERYWHERE else [host]
        names = tuple(f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name in hosts)
        return cls(f"http://{names[0]}", names, tuple(f"http://{name}" for name in names))


def _own_addresses() -> list[str]:
    """This machine's IPv4 addresses and its name, the address that others see first."""
    interfaces = psutil.net_if_addrs().values()
    found = [a.address for card in interfaces for a in card if a.family == socket.AF_INET]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # sends nothing
        found.insert(0, probe.getsockname()[0])
    return list(dict.fromkeys([*(a for a in found if a != LOOPBACK), socket.gethostname()]))

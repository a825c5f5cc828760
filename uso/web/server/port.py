"""The port that the page listens on, taken before anything slow is imported: a taken one is refused at once."""

import os
import socket

from uso.errors import ConfigError

MAX_PORT = 65535
BACKLOG = 2048
EVERYWHERE = ("0.0.0.0", "::")


class Reserved(socket.socket):
    """A bound socket. No other process can take the port until it listens; from then on lingering connections do not
    keep the next server from the port."""

    def listen(self, backlog: int = BACKLOG, /) -> None:
        self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        super().listen(max(backlog, BACKLOG))  # asyncio's own is how many it accepts in one go (`connections.py`)


def listen(host: str, port: int) -> Reserved:
    """Take the port and listen: connections wait, nothing is refused. Port 0 takes a free one.

    Raises:
        ConfigError: the port is taken, or the host is not an address of this machine.
    """
    listener = reserve(host, port)
    try:
        listener.listen()
    except OSError as error:
        listener.close()
        raise _taken(host, port, error) from error
    return listener


def reserve(host: str, port: int) -> Reserved:
    """Take the port without listening: connections are refused until the socket's `listen` is called.

    Raises:
        ConfigError: the port is taken, or the host is not an address of this machine.
    """
    if not 0 <= port <= MAX_PORT:
        raise ConfigError(f"--port is {port}; 0 to {MAX_PORT} is allowed, and 0 takes a free one.")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except socket.gaierror as error:
        raise ConfigError(f"--host {host} is no address of this machine ({error.strerror}).") from error
    try:
        try:
            return _bound(family, host, port, share=False)
        except OSError:
            return _bound(family, host, port, share=True)  # connections of a server that has just ended still linger
    except OSError as error:
        raise _taken(host, port, error) from error


def _bound(family: int, host: str, port: int, share: bool) -> Reserved:
    """A bound socket; with `share` also where lingering connections still use the port."""
    made = Reserved(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, share)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, True)
        made.bind((host, port))
    except BaseException:
        made.close()
        raise
    return made


def _taken(host: str, port: int, error: OSError) -> ConfigError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return ConfigError(f"{host}:{port} cannot be listened on ({reason}). Choose another --port.")


def address(listener: socket.socket) -> str:
    """The URL to open on this machine."""
    host, port = listener.getsockname()[:2]
    if host in EVERYWHERE:
        return f"http://localhost:{port}"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

"""The port that the page listens on, taken before anything slow is imported: connections wait, nothing is refused."""

import os
import socket

from uso.errors import ConfigError

MAX_PORT = 65535
EVERYWHERE = ("0.0.0.0", "::")


def listen(host: str, port: int) -> socket.socket:
    """Take the port; 0 takes a free one.

    Raises:
        ConfigError: the port is taken, or the host is none of this machine's.
    """
    if not 0 <= port <= MAX_PORT:
        raise ConfigError(f"--port is {port}; 0 to {MAX_PORT} is allowed, and 0 takes a free one.")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except socket.gaierror as error:
        raise ConfigError(f"--host {host} is no address of this machine ({error.strerror}).") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigError(f"{host}:{port} cannot be listened on ({reason}). Choose another --port.") from error


def address(listener: socket.socket) -> str:
    """The URL to open on this machine."""
    host, port = listener.getsockname()[:2]
    if host in EVERYWHERE:
        return f"http://localhost:{port}"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

"""The port that the page listens on, taken before anything slow is imported: connections wait, nothing is refused."""

import socket

from uso.errors import ConfigError


def listen(host: str, port: int) -> socket.socket:
    """Take the port.

    Raises:
        ConfigError: the port is taken, or the host is none of this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{host}:{port} cannot be listened on ({reason}). Choose another --port.") from error


def address(listener: socket.socket) -> str:
    """The URL to open."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"

"""The port: taken early, refused in a sentence, free again after a restart."""

import socket

import pytest

from tests.support.running import listens
from uso.errors import ConfigError
from uso.web.server.port import listen, reserve


def test_a_reserved_port_refuses_connections_until_it_listens() -> None:
    """Catches `--bind-when-ready` that lets connections wait, so that a proxy waits too instead of saying so."""
    with reserve("127.0.0.1", 0) as kept:
        port = kept.getsockname()[1]
        assert not listens(port)
        for take in (reserve, listen):
            with pytest.raises(ConfigError, match=f"{port} cannot be listened on \\(Address already in use\\)"):
                take("127.0.0.1", port)
        kept.listen()
        assert listens(port)
        with pytest.raises(ConfigError):
            reserve("127.0.0.1", port)


def test_a_restart_gets_its_port_although_connections_linger() -> None:
    """Catches a server that cannot be started again for a minute after it has closed connections itself."""
    for take in (listen, reserve):
        with take("127.0.0.1", 0) as first:
            first.listen()
            port = first.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port)) as client:
                first.accept()[0].close()  # the side that closes first keeps the port busy
                assert client.recv(1) == b""
        take("127.0.0.1", port).close()

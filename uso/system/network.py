"""What the environment says about proxies and certificates: checked where the network is used, ignored where it is not.

Libraries read these variables when they make a client, some of them when they are imported, and one value that they
cannot read ends all of it. No HTTP client is imported here.
"""

import os
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from uso.errors import ConfigError

PROXIES = ("all_proxy", "http_proxy", "https_proxy")
NO_PROXY = "no_proxy"
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""The first that is set counts, for httpx as for OpenSSL."""
VARIABLES = (*PROXIES, NO_PROXY, *(name.lower() for name in CERTIFICATES))

_HIDING = threading.Lock()


@contextmanager
def hidden_network_settings() -> Iterator[None]:
    """While inside, the process has none of these variables. For imports that make a client which is never used."""
    with _HIDING:
        hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.lower() in VARIABLES}
        try:
            yield
        finally:
            os.environ.update(hidden)


def check_network(make_client: Callable[..., Any]) -> None:
    """Refuse variables that no connection can be made with, before one is tried.

    Args:
        make_client: `Client` of httpx or of httpx2, whichever will be used.

    Raises:
        ConfigError: names the variable and its value.
    """
    for name in [name for name in CERTIFICATES if os.environ.get(name)][:1]:
        _check_certificates(name, os.environ[name])
    try:
        make_client().close()
    except Exception as error:
        for name, value in _given(PROXIES):
            _check_proxy(name, value, make_client)
        names = " and ".join(f"{name}={without_login(value)}" for name, value in _given((NO_PROXY,))) or "Its settings"
        raise ConfigError(
            f"{names} cannot be used ({error}). Leave out networks like fe80::/10, or unset the variable."
        ) from error


def _check_certificates(name: str, value: str) -> None:
    try:
        if name == CERTIFICATES[0]:
            ssl.create_default_context(cafile=value)
        elif not any(os.path.isdir(part) for part in value.split(os.pathsep)):
            raise FileNotFoundError(None, "No such folder")
    except OSError as error:  # SSLError is one
        reason = "it holds no certificates" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(
            f"{name}={value} cannot be used ({reason}), so no connection is safe. Correct the path, or unset {name}."
        ) from error


def _check_proxy(name: str, value: str, make_client: Callable[..., Any]) -> None:
    try:
        make_client(proxy=value if "://" in value else f"http://{value}", trust_env=False).close()
    except ImportError as error:
        raise ConfigError(
            f"{name}={without_login(value)} needs a package that is not installed. Run: pip install socksio. Or name "
            f"an http:// proxy, or unset {name}."
        ) from error
    except Exception as error:
        raise ConfigError(
            f"{name}={without_login(value)} is no proxy that can be used. Name one with http://, https:// or "
            f"socks5://, or unset {name}."
        ) from error


def _given(names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in os.environ.items() if name.lower() in names and value]


def is_this_machine(url: str) -> bool:
    """Whether an address leads to this machine."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def proxy_for(url: str) -> str:
    """The proxy that the environment names for an address, without its login; "" if there is none."""
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    return "" if not proxy or proxy_bypass(parts.netloc) else without_login(proxy)


def without_login(url: str) -> str:
    """An address to be shown: a proxy's may hold a password."""
    return re.sub(r"(?<=//)[^/@]*@|^[^/@]*@", "***@", url)

"""Proxies and certificates: a value that cannot be used is named, and hides where nothing uses it."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import httpx2
import pytest

from uso.config import ROOT
from uso.errors import ConfigError
from uso.system.network import VARIABLES, check_network, hidden_network_settings, is_this_machine, proxy_for


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower() in VARIABLES]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ALL_PROXY", "socks://127.0.0.1:7897/", "ALL_PROXY=socks://127.0.0.1:7897/ is no proxy that can be used"),
        ("http_proxy", "127.0.0.1:99x", "http_proxy=127.0.0.1:99x is no proxy that can be used"),
        ("HTTPS_PROXY", "ftp://me:secret@proxy:1", "HTTPS_PROXY=ftp://***@proxy:1 is no proxy"),
        ("SSL_CERT_FILE", "/nonexistent/cacert.pem", "SSL_CERT_FILE=/nonexistent/cacert.pem cannot be used"),
        ("SSL_CERT_FILE", __file__, "it holds no certificates"),
        ("SSL_CERT_DIR", "/nonexistent", "SSL_CERT_DIR=/nonexistent cannot be used"),
    ],
)
def test_what_cannot_be_used_is_named(
    library: object, name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as refused:
        check_network(library.Client)  # type: ignore[attr-defined]
    assert says in str(refused.value) and name in str(refused.value).rpartition(".")[0]
    assert "secret" not in str(refused.value)


def test_a_network_that_httpx_cannot_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "localhost,10.0.0.0/8,fe80::/10")
    with pytest.raises(ConfigError, match="no_proxy=localhost,10.0.0.0/8,fe80::/10 cannot be used"):
        check_network(httpx.Client)


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_what_can_be_used_is_let_through(library: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a check that knows less than the library."""
    monkeypatch.setenv("http_proxy", "127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "localhost,::1,.example.org,10.0.0.0/8")
    monkeypatch.setenv("SSL_CERT_FILE", "")
    check_network(library.Client)  # type: ignore[attr-defined]


def test_they_are_hidden_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://x")
    with hidden_network_settings():
        assert "ALL_PROXY" not in os.environ
    assert os.environ["ALL_PROXY"] == "socks://x"


def test_an_address_of_this_machine_is_known() -> None:
    own = ["http://127.0.0.1:7860", "http://localhost", "http://[::1]:1/", "http://127.9.9.9", "http://a.localhost"]
    assert all(map(is_this_machine, own))
    assert not any(map(is_this_machine, ["http://192.168.0.2", "http://localhost.org", "https://example.org"]))


def test_the_proxy_of_an_address_is_named_without_its_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:secret@10.0.0.1:3128")
    monkeypatch.setenv("no_proxy", "inside.example.org")
    assert proxy_for("http://example.org:7860") == "http://***@10.0.0.1:3128"
    assert proxy_for("http://inside.example.org") == "" == proxy_for("https://example.org")


def run(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv], cwd=ROOT, capture_output=True, text=True, env=os.environ | environment, check=False
    )


def test_download_names_the_variable(tmp_path: Path) -> None:
    ran = run(
        "-m",
        "uso",
        "download",
        "--model",
        "flux-dev",
        ALL_PROXY="socks://127.0.0.1:7897/",
        HF_HOME=str(tmp_path),
        HF_HUB_OFFLINE="0",
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("ALL_PROXY=socks://127.0.0.1:7897/ is no proxy that can be used.")


@pytest.mark.slow
def test_the_page_is_built_whatever_they_say() -> None:
    """Gradio makes clients when it is imported, and dies of a value that they cannot read."""
    script = """
from uso.web.gradio_import import importing_gradio
with importing_gradio():
    import uso.web.server.app, uso.web.page.layout
"""
    ran = run(
        "-c",
        script,
        ALL_PROXY="socks://127.0.0.1:7897/",
        no_proxy="fe80::/10",
        SSL_CERT_FILE="/nonexistent/cacert.pem",
    )
    assert ran.returncode == 0, ran.stderr

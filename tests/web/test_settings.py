"""The server's flags: what they mean as settings, and what is refused before anything heavy is imported."""

import argparse
from pathlib import Path

import pytest

import app
from uso.errors import ConfigError
from uso.web.settings import ServerSettings, server_settings, worker_devices


def parsed(*flags: str) -> argparse.Namespace:
    return app.parser().parse_args(flags)


def test_without_flags_the_settings_are_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a default that is written down twice, and a flag that does not reach its setting's name."""
    monkeypatch.delenv("ROOT_PATH", raising=False)
    assert server_settings(parsed()) == ServerSettings(output=Path("outputs").resolve())


def test_every_setting_has_a_flag() -> None:
    """Catches a flag whose value nobody reads: each of these changes exactly one setting."""
    changes = {
        "host": ["--host", "0.0.0.0"],
        "port": ["--port", "1"],
        "root_path": ["--root-path", "/uso/"],
        "bind_when_ready": ["--bind-when-ready"],
        "trusted_proxies": ["--trusted-proxies", "10.0.0.0/8, *"],
        "allowed_hosts": ["--allowed-hosts", "Uso.example.org, 192.0.2.7,[2001:db8::7]"],
        "frame_ancestors": ["--frame-ancestors", "https://Hub.example.org/, http://localhost:8080,https://*.a.org"],
        "accounts": ["--auth", "people"],
        "user_header": ["--auth-header", "X-Forwarded-User"],
        "styles": ["--styles", "house"],
        "safety": ["--safety", "filters:check"],
        "translate": ["--translate", "languages:to_english"],
        "mcp": ["--mcp"],
        "max_upload_mb": ["--max-upload-mb", "5"],
        "max_megapixels": ["--max-megapixels", "12.5"],
        "rate": ["--rate", "0"],
        "max_waiting": ["--max-waiting", "5"],
        "max_waiting_per_person": ["--max-waiting-per-person", "2"],
        "orphans": ["--orphans", "finish"],
        "orphan_grace": ["--orphan-grace", "3"],
        "grace": ["--grace", "4"],
        "prune_days": ["--prune-days", "7"],
        "prune_gb": ["--prune-gb", "20"],
        "min_free_gb": ["--min-free-gb", "2"],
        "log_prompts": ["--log-prompts"],
        "output": ["--output", "elsewhere"],
    }
    assert set(changes) == set(ServerSettings.__dataclass_fields__)
    for name, flags in changes.items():
        base = changes["allowed_hosts"] if name == "user_header" else []  # refused without it
        plain, changed = server_settings(parsed(*base)), server_settings(parsed(*base, *flags))
        differing = {field for field in changes if getattr(changed, field) != getattr(plain, field)}
        assert differing == {name}, flags
    assert server_settings(parsed("--root-path", "/uso/")).root_path == "/uso"
    names = server_settings(parsed(*changes["allowed_hosts"])).allowed_hosts
    assert names == ("uso.example.org", "192.0.2.7", "[2001:db8::7]")
    sites = server_settings(parsed(*changes["frame_ancestors"])).frame_ancestors
    assert sites == ("https://hub.example.org", "http://localhost:8080", "https://*.a.org")
    assert server_settings(parsed("--trusted-proxies", "10.0.0.0/8, *")).trusted_proxies == ("10.0.0.0/8", "*")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--rate", "-1"], "--rate is -1; 0 or more is allowed."),
        (["--max-waiting", "0"], "--max-waiting is 0; 1 or more is allowed."),
        (["--orphan-grace", "inf"], "--orphan-grace is inf; 0 or more is allowed."),
        (["--prune-days", "nan"], "--prune-days is nan; 0 or more is allowed."),
        (["--max-megapixels", "1000"], "--max-megapixels is 1000; at most 89 is opened safely."),
        (["--root-path", "uso"], "--root-path is 'uso'; a path such as /uso is allowed."),
        (["--trusted-proxies", "nginx"], "--trusted-proxies: 'nginx' is no address."),
        (["--allowed-hosts", "http://x"], "--allowed-hosts: 'http://x' is no host."),
        (["--allowed-hosts", "x:7860"], "--allowed-hosts: 'x:7860' is no host."),
        (["--allowed-hosts", "*"], "--allowed-hosts: '*' is no host."),
        *(
            (["--frame-ancestors", site], f"--frame-ancestors: '{site}' is no site.")
            for site in (
                "*",
                "'none'",
                "hub.example.org",
                "https:",
                "https://",
                "https://*",
                "https://*.org",
                "https://a.*.org",
                "https://hub.example.org/page",
                "https://hub.example.org; script-src *",
                "https://a.org b.org",
                "https://a.org\r\nx: y",
                "https://hub.example.org:0",
                "https://hub.example.org:65536",
                "https://[::1]",
                "https://hüb.example.org",
                "ftp://hub.example.org",
                "https://you@hub.example.org",
            )
        ),
        (["--auth-header", "X-User"], "--auth-header needs --allowed-hosts. Without it a web page elsewhere"),
        (["--auth-header", "X-User", "--host", "0.0.0.0"], "--auth-header needs --allowed-hosts."),
        (["--auth-header", "X-User", "--trusted-proxies", "10.0.0.0/8"], "--auth-header needs --allowed-hosts."),
        (["--auth-header", "X-User", "--allowed-hosts", ","], "--auth-header needs --allowed-hosts."),
        (["--auth", "people", "--auth-header", "X-User"], "--auth and --auth-header are two ways to let people in"),
    ],
)
def test_wrong_values_are_refused(flags: list[str], sentence: str) -> None:
    """Catches a value that is taken and does something odd hours later."""
    with pytest.raises(ConfigError) as caught:
        server_settings(parsed(*flags))
    assert str(caught.value).startswith(sentence)


def test_workers_devices() -> None:
    """Catches numbers that are no GPUs, and a worker that is lost."""
    assert worker_devices(parsed()) == ["auto"] and worker_devices(parsed("--device", "cpu")) == ["cpu"]
    assert worker_devices(parsed("--devices", "0, 1")) == ["cuda:0", "cuda:1"]
    assert worker_devices(parsed("--devices", "cpu,cpu")) == ["cpu", "cpu"]
    assert worker_devices(parsed("--devices", "cuda,1")) == ["cuda:0", "cuda:1"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--devices", "0,x"], "--devices 0,x: 'x' is no device."),
        (["--devices", "auto"], "--devices auto: 'auto' is no device."),
        (["--devices", "0,0"], "--devices 0,0: cuda:0 is named twice."),
        (["--devices", "cuda,0"], "--devices cuda,0: cuda:0 is named twice."),
        (["--devices", "cuda:01,1"], "--devices cuda:01,1: cuda:1 is named twice."),
        (["--devices", "0", "--device", "cpu"], "--device and --devices both say where to run"),
    ],
)
def test_wrong_devices_are_refused(flags: list[str], sentence: str) -> None:
    """Catches two workers on one GPU, and a typo that becomes a CPU."""
    with pytest.raises(ConfigError) as caught:
        worker_devices(parsed(*flags))
    assert str(caught.value).startswith(sentence)

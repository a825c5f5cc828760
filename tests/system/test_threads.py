"""How threads wait and how many there are: both are set before torch reads them, and a user's own settings stay."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from uso.config import ROOT
from uso.system import threads
from uso.system.threads import COUNT_BY_USER, WAITING_BY_USER, processor_quota, share_processors

SETTINGS = {*COUNT_BY_USER, *WAITING_BY_USER}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.setenv(name, "")  # so that what is set meanwhile goes again


def groups(folder: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    """The two places where Linux names groups and their quotas."""
    for name, text in files.items():
        path = folder / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (folder / "mount").mkdir(exist_ok=True)
    (folder / "own").write_text(own + "\n")
    return folder / "mount", folder / "own"


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/", {}, None),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2.0),
        ("0::/a/b", {"a/b/cpu.max": "50000 100000", "a/cpu.max": "200000 100000"}, 0.5),
        ("0::/of/the/host", {"cpu.max": "300000 100000"}, 3.0),
        ("4:cpu,cpuacct:/a\n0::/", {"cpu/a/cpu.cfs_quota_us": "250000", "cpu/a/cpu.cfs_period_us": "100000"}, 2.5),
        ("4:cpu:/host", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1.0),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("3:cpuset:/\n2:memory:/a", {"cpu/cpu.cfs_quota_us": "100", "cpu/cpu.cfs_period_us": "100"}, None),
        ("0::/", {"cpu.max": "what else"}, None),
    ],
)
def test_a_quota_is_read_from_either_version_of_control_groups(
    tmp_path: Path, own: str, files: dict[str, str], quota: float | None
) -> None:
    """Catches a container with `--cpus 2` on a machine of 64 cores that starts 64 threads."""
    assert processor_quota(*groups(tmp_path, own, files)) == quota


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert processor_quota(tmp_path, tmp_path / "missing") is None


@pytest.mark.parametrize(("quota", "count"), [(None, ""), (0.5, "1"), (1.5, "2"), (3.0, "3"), (4.0, ""), (16.0, "")])
def test_no_more_threads_than_a_quota_feeds(monkeypatch: pytest.MonkeyPatch, quota: float | None, count: str) -> None:
    monkeypatch.setattr(threads, "processor_quota", lambda: quota)
    monkeypatch.setattr(threads, "_processors", lambda: 4)
    share_processors()
    assert os.environ["OMP_NUM_THREADS"] == count
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize("name", COUNT_BY_USER)
def test_a_count_that_the_user_set_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(threads, "processor_quota", lambda: 1.0)
    monkeypatch.setattr(threads, "_processors", lambda: 4)
    monkeypatch.setenv(name, "3")
    share_processors()
    assert [os.environ[each] for each in COUNT_BY_USER if each != name] == ["", ""] and os.environ[name] == "3"


@pytest.mark.parametrize("name", WAITING_BY_USER)
def test_a_way_of_waiting_that_the_user_set_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "ACTIVE" if name == "OMP_WAIT_POLICY" else "100")
    before = {each: os.environ[each] for each in WAITING_BY_USER}
    share_processors()
    assert {each: os.environ[each] for each in WAITING_BY_USER} == before


@pytest.mark.skipif(sys.platform != "linux", reason="asks GNU's OpenMP, which PyTorch uses on Linux")
@pytest.mark.parametrize(
    "start",
    [
        "import app; sys.argv = ['app.py', '--model', 'typo']; app.main()",
        "from uso.cli.main import main; main(['models'])",
    ],
)
def test_torch_reads_what_the_programs_set(start: str) -> None:
    """Catches a setting that comes after torch: OpenMP reads it once, and says here what it read."""
    script = f"import sys\n{start}\nassert 'torch' not in sys.modules\nimport torch"
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment | {"OMP_DISPLAY_ENV": "TRUE"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr

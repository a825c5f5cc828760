"""What the program stands on: requirements, container, proxy, make, example pictures. Files that nothing else reads."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import uso
from tests.support.drawn import needs_font
from tools.examples.drawn_examples import PICTURES as DRAWN
from tools.examples.drawn_examples import SIZE, drawn
from uso.web.server.process import LAST_SECONDS
from uso.web.settings import ServerSettings

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "assets" / "examples"
PICTURES = {path.relative_to(EXAMPLES).as_posix(): path for path in sorted(EXAMPLES.rglob("*")) if path.is_file()}

PACKAGES = {
    "PIL": "pillow",
    "axe_playwright_python": "axe-playwright-python",
    "cv2": "opencv-python-headless",
    "grpc": "grpcio",
    "prometheus_client": "prometheus-client",
    "skimage": "scikit-image",
    "triton": "torch",
    "yaml": "pyyaml",
}
"""Modules whose package has another name. Triton comes with every PyTorch for CUDA, in the version that it needs."""

OWN = {"app", "tests", "tools", "uso"}

MAX_PICTURE_BYTES = 200_000


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def requirements(name: str) -> dict[str, str]:
    """Package to pinned version; every line must be a pin."""
    pins: dict[str, str] = {}
    for line in read(name).splitlines():
        if line and not line.startswith(("#", "-r ")):
            match = re.fullmatch(r"([A-Za-z0-9_-]+)==([0-9.]+)(;.*)?", line)
            assert match, f"{name}: '{line}' is no exact pin"
            pins[match[1]] = match[2]
    return pins


def imported_packages(paths: Iterable[Path]) -> set[str]:
    """Packages from outside that files import, anywhere in them."""
    tops: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                tops |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                tops.add(str(node.module).split(".")[0])
    return {PACKAGES.get(top, top) for top in tops - OWN - set(sys.stdlib_module_names)}


def test_requirements_are_what_the_program_imports() -> None:
    """Catches an import that a fresh machine lacks, and a package that nobody uses any more."""
    folders = {"train": "training", "evaluate": "evaluation/page", "ray": "cluster"}
    optional = {name: ROOT / "uso" / folder for name, folder in folders.items()}
    program = [path for path in (ROOT / "uso").rglob("*.py") if not set(optional.values()) & set(path.parents)]
    assert set(requirements("requirements.txt")) == imported_packages([ROOT / "app.py", *program])
    for name, folder in optional.items():
        more = imported_packages(folder.rglob("*.py")) - set(requirements("requirements.txt"))
        assert set(requirements(f"requirements-{name}.txt")) == more


def test_development_requirements_cover_tests_and_tools() -> None:
    """Catches a test that only runs where somebody installed something by hand."""
    names = [f"requirements{name}.txt" for name in ("", "-train", "-evaluate", "-ray", "-dev")]
    have = {package for name in names for package in requirements(name)}
    assert imported_packages([*(ROOT / "tests").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]) <= have


def test_one_version() -> None:
    """Catches a release that says one version in its metadata and writes another into pictures."""
    assert tomllib.loads(read("pyproject.toml"))["project"]["version"] == uso.__version__


# Pictures


def table_rows() -> dict[str, list[str]]:
    """File to the other cells of its row in assets/README.md."""
    rows = (line.strip("|").split("|") for line in read("assets/README.md").splitlines() if line.startswith("| `"))
    return {cells[0].strip(" `"): [cell.strip() for cell in cells[1:]] for cells in rows}


def test_every_example_has_a_source_and_a_licence() -> None:
    """Catches a picture of unknown origin, and a row whose picture is gone."""
    rows = table_rows()
    assert set(rows) == set(PICTURES)
    for name, (_, source, licence) in rows.items():
        assert source, name
        assert re.match(r"public domain|CC0|Apache-2\.0", licence), name


@pytest.mark.parametrize("name", PICTURES)
def test_examples_are_pictures_of_a_useful_size(name: str) -> None:
    """Catches a broken file, one too small for its model, or one that makes every clone heavy."""
    assert PICTURES[name].stat().st_size < MAX_PICTURE_BYTES
    with Image.open(PICTURES[name]) as picture:
        picture.load()
        assert picture.size == (SIZE, SIZE) if name.startswith("drawn/") else max(picture.size) >= 448
        assert not picture.getexif()


@needs_font
@pytest.mark.parametrize("name", DRAWN)
def test_drawn_examples_are_what_the_tool_draws(name: str) -> None:
    """Catches a change of the miniature data after which the tool would write other pictures under the same names.

    Another build of OpenCV may round otherwise; pictures of neighbouring numbers are 20 levels apart or more."""
    origin = DRAWN[name]
    picture, labels = drawn(origin)
    shown = labels.subject if origin.part == "content" else labels.style
    assert shown == Path(name).stem.replace("-", " ")
    with Image.open(EXAMPLES / "drawn" / name) as kept:
        assert levels_apart(picture, kept) < 2
    other, _ = drawn(replace(origin, number=origin.number + 1))
    assert levels_apart(picture, other) > 20


def levels_apart(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two pictures' pixels, of 255 levels."""
    return float(np.abs(np.asarray(one, np.float32) - np.asarray(other, np.float32)).mean())


# Container and proxy


def dockerfile() -> list[tuple[str, str]]:
    """(instruction, rest), continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^#.*\n", "", read("Dockerfile")))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in joined.splitlines() if line.strip()]


def instruction(name: str) -> str:
    (rest,) = (rest for key, rest in dockerfile() if key == name)
    return rest


def test_the_container_can_compile() -> None:
    """Catches an image without the C compiler that Triton wants, where every step is slower, and kernels that are not
    kept."""
    packages = next(rest for key, rest in dockerfile() if key == "RUN" and "apt-get install" in rest)
    assert {"gcc", "libc6-dev"} <= set(packages.split())
    kept = re.search(r"XDG_CACHE_HOME=(\S+)", instruction("ENV"))
    volumes = json.loads(instruction("VOLUME"))
    assert kept is not None and any(kept[1].startswith(volume + "/") for volume in volumes)


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load(read("docker-compose.yml"))


def test_container_flags_are_flags_of_the_program(compose: Any) -> None:
    """Catches a renamed flag, or a default port or folder that the image no longer agrees with."""
    from app import parser

    start, model = json.loads(instruction("ENTRYPOINT")), json.loads(instruction("CMD"))
    assert start[:2] == ["python", "app.py"]
    args = parser().parse_args(start[2:] + model)
    assert (args.host, args.model) == ("0.0.0.0", "auto")
    assert instruction("EXPOSE") == str(args.port) == compose["services"]["app"]["expose"][0]
    volumes = json.loads(instruction("VOLUME"))
    assert str(args.output) in volumes
    assert sorted(mount.split(":")[1] for mount in compose["services"]["app"]["volumes"]) == sorted(volumes)
    parser().parse_args(
        start[2:] + [re.sub(r"\$\{\w+:-(\w+)\}", r"\1", part) for part in compose["services"]["app"]["command"]]
    )


def test_health_check_asks_the_program() -> None:
    """Catches a health route that moved: the container would be unhealthy for ever."""
    from app import parser

    command = json.loads(instruction("HEALTHCHECK").split("CMD ", 1)[1])
    compile(command[2], "HEALTHCHECK", "exec")
    host, port = re.search(r"HTTPConnection\('([\d.]+)', (\d+)", command[2]).groups()  # type: ignore[union-attr]
    assert (host, int(port)) == ("127.0.0.1", parser().parse_args([]).port)
    assert "'/healthz'" in command[2]
    assert '@app.get("/healthz")' in read("uso/web/server/app.py")


def test_image_gets_what_it_copies_and_runs_as_nobody_special() -> None:
    """Catches a file left out by .dockerignore, and an image that runs as root."""
    allowed = {line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")}
    copied = {source for key, rest in dockerfile() if key == "COPY" for source in rest.split()[:-1]}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    assert instruction("USER") == "1000"


def test_image_installs_the_pinned_torch() -> None:
    """Catches a torch that is downloaded twice, because the layer made for it holds another version."""
    assert instruction("ARG") == f"TORCH_VERSION={requirements('requirements.txt')['torch']}"


PROXIES = ("deploy/nginx.conf", "deploy/nginx-subpath.conf")


@pytest.mark.parametrize("name", PROXIES)
def test_proxy_and_program_agree(compose: Any, name: str) -> None:
    """Catches a proxy that cuts uploads or finished pictures off, or asks at the wrong door."""
    defaults = ServerSettings(output=Path("outputs"))
    proxy = read(name)
    port = compose["services"]["app"]["expose"][0]
    assert f"http://app:{port};" in proxy
    assert "client_max_body_size 0;" in proxy  # the program's own limit can be moved
    assert int(compose["services"]["app"]["stop_grace_period"].removesuffix("s")) > defaults.grace + LAST_SECONDS
    for mount in compose["services"]["proxy"]["volumes"]:
        assert (ROOT / mount.split(":")[0]).is_file(), mount
        assert mount.endswith(":ro")
    assert "/srv/starting.html" in proxy


def test_both_proxies_differ_only_in_the_path() -> None:
    """Catches a change to one of the two files that the other one lacks."""

    def directives(name: str) -> set[str]:
        return {" ".join(line.split()) for line in read(name).splitlines() if re.fullmatch(r"[^#]*;", line)}

    root, path = (directives(name) for name in PROXIES)
    assert root - path == set()
    assert path - root == {"rewrite ^/uso(/.*)$ $1 break;", "absolute_redirect off;", "return 308 /uso/;"}


def test_program_and_proxy_show_the_same_starting_page(compose: Any) -> None:
    """Catches an image without the page that the program shows while it starts."""
    from uso.web.server.starting import STARTING_PAGE

    mounts = dict(mount.split(":")[:2] for mount in compose["services"]["proxy"]["volumes"])
    name = str(STARTING_PAGE.relative_to(ROOT))
    assert mounts[f"./{name}"] == "/srv/starting.html"
    assert ("COPY", f"{name} {name}") in dockerfile()


def test_compose_reserves_a_gpu_and_passes_the_token(compose: Any) -> None:
    """Catches a compose file that runs the real model on the processor, or cannot fetch it."""
    (device,) = compose["services"]["app"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert "HF_TOKEN" in compose["services"]["app"]["environment"]
    assert set(compose["volumes"]) == {mount.split(":")[0] for mount in compose["services"]["app"]["volumes"]}


def test_starting_page_needs_nothing_from_outside() -> None:
    """It is shown when nothing runs: catches a style sheet or script that would have to come from somewhere."""
    page = read("deploy/starting.html")
    assert not re.findall(r"(?:src|href)=|https?://|@import|url\(", page)
    assert "being initialised" in page


# make and CI

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@needs_make
@pytest.mark.parametrize("goal", ["run", "test"])
def test_make_refuses_an_old_python_in_a_sentence(tmp_path: Path, goal: str) -> None:
    """Catches a set-up that goes on with Python 3.10 and fails minutes later in somebody else's words."""
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    done = subprocess.run(
        ["make", goal, f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "USO needs Python 3.11 or newer. Name one: make PYTHON=" in done.stdout
    assert not (tmp_path / "venv").exists()


def test_ci_runs_the_documented_command() -> None:
    """Catches a CI script that git keeps but nobody can execute, or that tests something else than people do."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = [shlex.split(line, comments=True) for line in script.read_text(encoding="utf-8").splitlines()[-1:]]
    assert lines == [["make", "test-all"]]
    assert re.search(r"(?m)^test-all:", read("Makefile"))


@pytest.mark.xdist_group("together")
def test_groups_of_tests_stay_together(request: pytest.FixtureRequest) -> None:
    """Catches a pytest whose node ids pytest-xdist cannot change (9.2): every worker would start every server."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        assert request.node.nodeid.endswith("@together")

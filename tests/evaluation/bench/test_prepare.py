"""References out of packages: found where they lie, verified, and never taken from elsewhere."""

import hashlib
import io
import json
import lzma
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import draw_picture
from uso.errors import ConfigError, ImageError
from uso.evaluation.bench import config as config_module
from uso.evaluation.bench.config import BenchConfig, Package, References
from uso.evaluation.bench.prepare import LICENCES, LONGEST, prepare
from uso.evaluation.bench.rcc import resource


def png(seed: int, size: tuple[int, int] = (40, 30)) -> bytes:
    file = io.BytesIO()
    draw_picture(*size, seed).save(file, "PNG")
    return file.getvalue()


def rcc(files: dict[str, bytes], compress: bool = False, version: int = 3) -> bytes:
    """A Qt resource file with one folder, `pictures`, as `rcc --binary` writes it."""
    names, places, payload, offsets = b"", [], b"", []
    for name in ("pictures", *files):
        places.append(len(names))
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    for content in files.values():
        offsets.append(len(payload))
        packed = struct.pack(">I", len(content)) + zlib.compress(content) if compress else content
        payload += struct.pack(">I", len(packed)) + packed
    end = b"\0" * 8 if version >= 2 else b""
    tree = struct.pack(">IHII", 0, 2, 1, 1) + end + struct.pack(">IHII", places[0], 2, len(files), 2) + end
    for place, offset in zip(places[1:], offsets, strict=True):
        tree += struct.pack(">IHHHI", place, int(compress), 0, 0, offset) + end
    head = 24 if version >= 3 else 20
    starts = (head, head + len(tree), head + len(tree) + len(payload))
    return b"qres" + struct.pack(">4I", version, *starts) + b"\0" * (head - 20) + tree + payload + names


@pytest.mark.parametrize(("compress", "version"), [(False, 3), (True, 3), (False, 1)])
def test_a_resource_file_gives_the_file_that_is_asked_for(compress: bool, version: int) -> None:
    """Catches nodes of another size, and a neighbour's content under a name."""
    data = rcc({"a.webp": b"first", "b.webp": b"second"}, compress, version)
    assert resource(data, "/pictures/a.webp") == b"first"
    assert resource(data, "/pictures/b.webp") == b"second"
    with pytest.raises(ImageError, match=r"holds no pictures/c.webp"):
        resource(data, "/pictures/c.webp")
    with pytest.raises(ImageError, match="is damaged"):
        resource(data[:40], "/pictures/a.webp")
    with pytest.raises(ImageError, match="no Qt resource file"):
        resource(b"PNG" * 20, "/pictures/a.webp")


def deb(path: Path, files: dict[str, bytes]) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    data = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("data.tar.xz", lzma.compress(packed.getvalue()))):
        data += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        data += b"\n" * (len(content) % 2)
    path.write_bytes(data)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel and a .deb in a folder, and references into them, in the place of the shipped ones."""
    folder = tmp_path / "packages"
    folder.mkdir()
    files = {"koala": png(1), "neon": png(2, (1500, 900)), "girl": png(3)}
    with zipfile.ZipFile(folder / "some_art-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("some_art/koala.png", files["koala"])
    inside = rcc({"neon.png": files["neon"], "girl.png": files["girl"]})
    deb(folder / "more-art_2.0-1_all.deb", {"usr/share/art.rcc": inside})

    def entry(name: str, kind: str, package: str, file: str) -> dict[str, str]:
        digest = hashlib.sha256(files[name]).hexdigest()
        about = {"author": f"{name}'s maker", "licence": "CC0-1.0", "source": "somewhere"}
        word = "" if kind == "style" else name
        return {"kind": kind, "word": word, "package": package, "file": file, "sha256": digest} | about

    shelf = "usr/share/art.rcc!/pictures"
    known = References.model_validate(
        {
            "packages": {
                "some-art": Package(kind="wheel", version="1.0"),
                "more-art": Package(kind="deb", version="2.0-1"),
            },
            "pictures": {
                "koala": entry("koala", "object", "some-art", "some_art/koala.png"),
                "girl": entry("girl", "person", "more-art", f"{shelf}/girl.png"),
                "neon": entry("neon", "style", "more-art", f"{shelf}/neon.png"),
            },
        }
    )
    monkeypatch.setattr("uso.evaluation.bench.prepare.references", lambda: known)
    return folder


CONFIG = BenchConfig.model_validate(
    {
        "title": "Small",
        "seed": 5,
        "contents": ["koala", "girl"],
        "styles": ["neon"],
        "subject": {"prompts_per_type": 1, "images": 2},
        "style": {"prompts": 1, "images": 2},
        "joint": {"styles_per_content": 1},
    }
)


def test_references_come_out_of_packages_with_their_licences(packages: Path, tmp_path: Path) -> None:
    """Catches a picture that lost its author on the way, and references too large for a model to read."""
    bench = prepare(CONFIG, tmp_path / "bench", None, packages, False, print)
    assert bench.count == 2 * 3 * 2 + 2 + 2 * 2
    about = bench.references["koala"].about
    assert (about["author"], about["licence"], about["package"]) == ("koala's maker", "CC0-1.0", "some-art")
    with Image.open(bench.references["neon"].files[0]) as picture:
        assert max(picture.size) == LONGEST
    text = (tmp_path / "bench" / LICENCES).read_text()
    assert "| girl | girl's maker | CC0-1.0 | somewhere | more-art |" in text
    rows = json.loads((tmp_path / "bench" / "bench.json").read_text())
    assert {"prompt", "image_paths", "save_dir"} <= set(rows[0])
    again = prepare(CONFIG, tmp_path / "again", None, packages, False, print)
    assert again.digest == bench.digest, "the same references make the same benchmark, wherever it lies"


def test_a_picture_that_is_not_the_listed_one_is_refused(packages: Path, tmp_path: Path) -> None:
    """Catches another picture under a known author's name: a package of the same version that was packed anew."""
    with zipfile.ZipFile(packages / "some_art-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("some_art/koala.png", png(9))
    with pytest.raises(ImageError, match=r"koala.png of some-art 1.0 is not the picture that is listed"):
        prepare(CONFIG, tmp_path / "bench", None, packages, False, print)


def test_a_package_that_is_nowhere_is_named(packages: Path, tmp_path: Path) -> None:
    """Catches a traceback on a machine without a network, or without Debian's tools."""
    (packages / "more-art_2.0-1_all.deb").unlink()
    with pytest.raises(ConfigError, match=r"more-art 2.0-1 is neither installed nor in .* \.deb \(Debian\)"):
        prepare(CONFIG, tmp_path / "bench", None, packages, False, print)
    (packages / "more-art_2.0-1_all.deb").write_bytes(b"no package")
    with pytest.raises(ConfigError, match="cannot be opened as a package"):
        prepare(CONFIG, tmp_path / "bench", None, packages, False, print)


def test_pictures_of_ones_own_take_their_place(tmp_path: Path) -> None:
    """Catches own pictures that are mixed with others, and a subject of several pictures that is scored by one."""
    own = tmp_path / "own"
    for place, seed in (("object/red-fox/front.png", 1), ("object/red-fox/side.png", 2), ("style/my_style.png", 3)):
        (own / place).parent.mkdir(parents=True, exist_ok=True)
        (own / place).write_bytes(png(seed))
    bench = prepare(CONFIG, tmp_path / "bench", own, tmp_path, False, print)
    assert set(bench.references) == {"red-fox", "my_style"}
    assert len(bench.references["red-fox"].files) == 2
    assert any(entry.prompt == "A red fox in the jungle." for entry in bench.entries)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no pictures in person/, object/ or style/"):
        prepare(CONFIG, tmp_path / "bench", tmp_path / "empty", tmp_path, False, print)


def test_the_shipped_files_are_read(tmp_path: Path) -> None:
    """Catches configs that no longer fit their own form."""
    assert config_module.paper_figures().figures["joint"]["csd"] == 0.495

"""Folders of saved styles: what is found, what is refused, and that names never become paths."""

from pathlib import Path

import pytest
from PIL import Image

from uso.errors import ImageError, RequestError
from uso.request.references import ReferenceImage, SavedStyle, read_reference
from uso.request.styles import StyleFolder, default_folder


def style(title: str = "Ink", strength: float = 1.0) -> SavedStyle:
    thumbnail = ReferenceImage.from_pil(Image.new("RGB", (8, 8), "red")).data
    kinds = {"thumbnail": thumbnail, "strength": strength, "weights": [1.0], "projector": "ab" * 32}
    return SavedStyle.build(b"\0" * 24, "F32", (1, 2, 3), title=title, **kinds)  # type: ignore[arg-type]


def names(folder: StyleFolder) -> list[str]:
    return [entry.head.title for entry in folder.entries()]


def test_a_style_is_kept_found_renamed_and_removed(tmp_path: Path) -> None:
    folder = StyleFolder(tmp_path / "new" / "styles")
    assert folder.entries() == []
    entry = folder.add(style("墨 Ink", 0.5))
    assert entry.path.parent == folder.path and entry.head.strength == 0.5
    for name in ("墨 ink", " 墨 INK ", entry.id):
        assert folder.get(name).data == style("墨 Ink", 0.5).data
    folder.rename("墨 Ink", "Oil")
    assert names(folder) == ["Oil"] and folder.get("oil").head.strength == 0.5
    folder.rename("Oil", "OIL")
    folder.delete("oil")
    assert names(folder) == [] and list(folder.path.iterdir()) == []


def test_what_is_refused(tmp_path: Path) -> None:
    """Catches a style that takes another's name, and a name that leads out of the folder."""
    folder = StyleFolder(tmp_path / "styles")
    folder.add(style())
    (tmp_path / "secret.safetensors").write_bytes(style("secret").data)
    with pytest.raises(RequestError, match="There is a style “ink” already"):
        folder.add(style("ink"))
    for name in ("../secret", str(tmp_path / "secret"), "secret", "", "a\0b"):
        for does in (folder.get, folder.delete, lambda name: folder.rename(name, "x")):
            with pytest.raises(RequestError, match="There is no saved style"):
                does(name)
    folder.add(style("Oil"))
    with pytest.raises(RequestError, match="already"):
        folder.rename("Oil", "INK")
    with pytest.raises(RequestError, match="1 to 60 visible"):
        folder.rename("Oil", "")
    with pytest.raises(ImageError):
        folder.add(SavedStyle(style().data[:-1], "torn"))
    assert names(folder) == ["Ink", "Oil"]


def test_a_name_of_slashes_stays_in_the_folder(tmp_path: Path) -> None:
    folder = StyleFolder(tmp_path / "styles")
    assert folder.add(style("../../a/b")).path.parent == folder.path
    assert folder.get("../../a/b").head.title == "../../a/b" and len(list(tmp_path.iterdir())) == 1


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """Catches one bad file that hides all others."""
    folder = StyleFolder(tmp_path)
    folder.add(style())
    (tmp_path / "torn.safetensors").write_bytes(style("torn").data[:-1])
    (tmp_path / "image.safetensors").write_bytes(b"\x89PNG")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "gone.safetensors").symlink_to(tmp_path / "nowhere")
    assert names(folder) == ["Ink"]


def test_what_a_reference_is_goes_by_its_bytes() -> None:
    assert isinstance(read_reference(style().data, "a.png"), SavedStyle)
    picture = ReferenceImage.from_pil(Image.new("RGB", (8, 8))).data
    assert type(read_reference(picture, "a.safetensors")) is ReferenceImage


def test_the_default_folder_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "uso" / "styles"

"""Images that the page or a program uploads: refused in a sentence, without a decoder's words or the server's paths."""

from pathlib import Path

import pytest
from PIL import Image

from tests.support.image_files import encode, grey_tags, scans, tiff
from uso.config import load_model_config
from uso.errors import ImageError
from uso.web.api.calls import Inputs, request_from


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n(%stdout) (w) file", "It is an EPS file (PostScript)."),
        (encode(Image.new("RGB", (32, 32)), "ICO"), "It is an icon (ICO)."),
        (tiff(grey_tags(4, 8, 4) | {50706: [1, 4]}, bytes(4)), "is a camera raw (DNG)"),
        (scans(encode(Image.new("L", (64, 64)), "JPEG", progressive=True), 150), "it is a JPEG of more than 32 scans"),
        (encode(Image.new("RGB", (32, 32)))[:60], "is damaged or incomplete (its pixel data end too early)."),
    ],
)
def test_what_is_no_picture_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, what: str
) -> None:
    """Catches a decoder's own words, or a path of the server, on the page."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    path = tmp_path / "hash" / "photo.png"
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(ImageError) as refused:
        request_from(load_model_config("demo"), Inputs(content_image={"path": str(path), "orig_name": "photo.png"}))
    assert str(refused.value).startswith("photo.png ") and what in str(refused.value)
    assert str(tmp_path) not in str(refused.value)

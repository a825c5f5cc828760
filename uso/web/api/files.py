"""Files that come in and go out: uploads as images, and copies of pictures that Gradio serves.

Only files that were uploaded to this server are opened.
"""

import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder, is_in_or_equal

from uso.errors import ImageError
from uso.images.pixels import MAX_PIXELS, upright_size
from uso.language import Text
from uso.request.references import ReferenceImage, SavedStyle, read_reference
from uso.web.jobs.job import Picture


def uploaded(value: Any, max_pixels: int = MAX_PIXELS) -> ReferenceImage | None:
    """The image that the raw value of an image field stands for.

    Raises:
        ImageError: a file that was not uploaded here, is gone, is no picture, or has too many pixels.
    """
    if value is None:
        return None
    path = upload_path(value)
    if path is None:
        raise ImageError(Text("The image was not uploaded to this page. Choose its file again."))
    name = Path(str(value.get("orig_name") or path)).name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(Text("{} is no longer on the server. Choose its file again.", name)) from error
    found = read_reference(data, name)
    if isinstance(found, SavedStyle):
        _ = found.image  # checks all of it
    else:
        upright_size(data, name, max_pixels)
    return found


def upload_path(value: Any) -> Path | None:
    """The uploaded file that the raw value of an image field names; None for anything else."""
    path = value.get("path") if isinstance(value, dict) else None
    if not isinstance(path, str) or "\x00" in path or not is_in_or_equal(path, get_upload_folder()):
        return None
    return Path(path)


def upload_size(value: Any) -> int:
    """Bytes of an uploaded file; 0 where there is none, which `uploaded` refuses."""
    try:
        path = upload_path(value)
        return 0 if path is None else path.stat().st_size
    except (OSError, ValueError):
        return 0


def handed_out(picture: Picture) -> str:
    """Path of a copy in a folder whose name nobody can guess. Gradio serves it byte for byte, and removes it later.

    Raises:
        OSError: it cannot be copied.
    """
    folder = Path(get_upload_folder()) / picture.id
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / picture.path.name
    if copy.exists():
        os.utime(copy)  # in use again, so its age must not get it removed
    else:
        part = folder / f".{uuid.uuid4().hex}"
        shutil.copyfile(picture.path, part)
        part.replace(copy)
    return str(copy)


def take_back(picture_ids: Sequence[str]) -> None:
    """Remove the copies of pictures that were deleted."""
    for picture_id in picture_ids:
        shutil.rmtree(Path(get_upload_folder()) / picture_id, ignore_errors=True)

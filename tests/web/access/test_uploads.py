"""How much may be uploaded: per person and time, and as long as there is room; through a real Gradio's upload route."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from uso.web.access import uploads
from uso.web.access.identity import asker_at
from uso.web.access.limits import REMEMBERED_KEYS
from uso.web.access.stack import guarded
from uso.web.access.uploads import (
    MOST_BYTES,
    MOST_FILES,
    NO_ROOM,
    STEP_SECONDS,
    WINDOW_SECONDS,
    Admitted,
    FolderLimit,
    Quota,
    Refused,
    Uploads,
)
from uso.web.settings import ServerSettings
from uso.web.store import uploads as folder_of_uploads

ANN, BEN = asker_at("198.51.100.7"), asker_at("203.0.113.9")
FOLDER = FolderLimit(1000, folder_of_uploads.tidied_size)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of uploads, private to this process as far as it can tell."""
    made = tmp_path / f"{folder_of_uploads.PREFIX}test"
    made.mkdir()
    monkeypatch.setenv(folder_of_uploads.VARIABLE, str(made))
    monkeypatch.setenv("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
    return made


@pytest.fixture
def guard(folder: Path, tmp_path: Path) -> Callable[..., Any]:
    """`guard(...)`: a Gradio page with its upload route, behind the stack with these settings."""

    def make(**settings: Any) -> Any:
        async def build() -> FastAPI:
            with gr.Blocks(analytics_enabled=False) as page:
                gr.Image()
            return gr.mount_gradio_app(FastAPI(), page, path="/", mcp_server=False, run_history=False)

        chosen = {"host": "0.0.0.0", "max_upload_mb": 1, **settings}
        return guarded(asyncio.run(build()), ServerSettings(output=tmp_path, **chosen))

    return make


def put(client: TestClient, *sizes: int) -> Any:
    files = [("files", (f"{number}.png", b"x" * size)) for number, size in enumerate(sizes or (10,))]
    return client.post("/gradio_api/upload", files=files)


def test_files_and_bytes_count_for_ten_minutes() -> None:
    """Catches a limit that never lets go, that forgets too soon, or that people share."""
    now = [1000.0]
    quota = Quota(3, 1000, clock=lambda: now[0])
    for _ in range(3):
        assert quota.wait("a", 10) == 0
        quota.count("a", 10)
    assert 0 < quota.wait("a", 10) <= WINDOW_SECONDS and quota.wait("b", 10) == 0
    upload = quota.count("b", 900)
    assert quota.wait("b", 100) == 0 < quota.wait("b", 101)
    quota.correct(upload, 1, 400)  # so much was not sent after all
    assert quota.wait("b", 600) == 0
    now[0] += WINDOW_SECONDS - STEP_SECONDS - 1
    assert quota.wait("a", 10) > 0
    now[0] += STEP_SECONDS + 1
    assert quota.wait("a", 10) == 0


def test_the_count_has_bounded_memory() -> None:
    """Catches a server that is filled up by many addresses, or by many small files of one."""
    now = [0.0]
    quota = Quota(10**9, 10**12, clock=lambda: now[0])
    for second in range(5000):
        now[0] = float(second)
        quota.count("a", 1)
    (minutes,) = quota.files._used.values()
    assert len(minutes) <= WINDOW_SECONDS / STEP_SECONDS
    for number in range(REMEMBERED_KEYS + 100):
        quota.count(str(number), 1)
    assert len(quota.files._used) == len(quota.bytes._used) == REMEMBERED_KEYS


def test_one_person_may_not_go_on_for_ever(guard: Callable[..., Any]) -> None:
    """Catches a stranger who fills the disk with many small files, one at a time or many in one; others go on."""
    app = guard()
    with TestClient(app, client=("198.51.100.7", 1)) as client:
        assert put(client, *[1] * (MOST_FILES - 1)).status_code == 200
        assert put(client).status_code == 200
        answer = put(client)
        assert answer.status_code == 429 and 0 < int(answer.headers["retry-after"]) <= WINDOW_SECONDS
        sentence = f"At most {MOST_FILES} files and 1 GB in 10 min are taken from one person. Try again in "
        assert answer.json()["detail"].startswith(sentence)
    with TestClient(app, client=("203.0.113.9", 1)) as other:
        assert put(other).status_code == 200


def test_images_in_messages_to_tools_are_uploads_too(guard: Callable[..., Any]) -> None:
    """Catches a way around the quota: an assistant's images come inside its calls, and are kept as files."""

    def call(client: TestClient, images: int) -> int:
        given = {f"image_{index}": "data:image/png;base64,AAAA" for index in range(images)}
        message = {"method": "tools/call", "params": {"name": "generate", "arguments": given}}
        return client.post("/gradio_api/mcp/", json=message).status_code

    with TestClient(guard(mcp=True), client=("198.51.100.7", 1)) as client:
        for images in (MOST_FILES - 1, 1, 0):
            assert call(client, images) == 404  # it has come through to where there is nothing
        assert call(client, 1) == 429 and put(client).status_code == 429
        assert call(client, 0) == 404


def test_uploads_on_their_way_count_as_what_they_may_become(folder: Path) -> None:
    """Catches a stranger who begins a thousand uploads at once, all of which are found to be the first."""

    async def begun() -> None:
        counted = Uploads(10**8, 0)
        taken = [await counted.begin(ANN, None) for _ in range(MOST_BYTES // 10**8 + 1)]
        assert [type(one) for one in taken] == [Admitted] * 10 + [Refused]
        assert isinstance(await counted.begin(BEN, None), Admitted)
        for one in taken[:10]:
            assert isinstance(one, Admitted)
            counted.end(one, files=1, size=5)
        assert isinstance(await counted.begin(ANN, None), Admitted)

    asyncio.run(begun())


def test_who_sits_at_the_machine_has_no_quota(folder: Path) -> None:
    """Catches a person who is held up on a server of their own."""

    async def begun() -> set[type]:
        counted = Uploads(10**6, 0)
        asker = asker_at("127.0.0.1", local=True)
        return {type(await counted.begin(asker, 10)) for _ in range(MOST_FILES * 2)}

    assert asyncio.run(begun()) == {Admitted}


def test_a_disk_that_is_nearly_full_takes_nothing(guard: Callable[..., Any], folder: Path) -> None:
    """Catches uploads that take the last of a disk on which pictures are to be saved, and what they leave there."""
    most = shutil.disk_usage(folder).free / 1e9
    with TestClient(guard(min_free_gb=most + 1), client=("198.51.100.7", 1)) as client:
        answer = put(client)
        assert (answer.status_code, answer.json()) == (507, {"detail": NO_ROOM})
    assert list(folder.iterdir()) == []


def test_a_full_folder_is_tidied_and_then_takes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a flood from many addresses, a folder that stays closed after it was tidied, and a sweep at each file."""
    (folder / "old").mkdir()
    (folder / "old" / "image.png").write_bytes(b"x" * 900)
    swept: list[int] = []
    real = folder_of_uploads.sweep

    def sweep(where: Path, now: float | None = None, most: int = 0) -> int:
        swept.append(most)
        return real(where, now, most)

    monkeypatch.setattr(folder_of_uploads, "sweep", sweep)

    async def begun() -> None:
        room = Uploads(200, 0, FOLDER)
        first = await room.begin(ANN, 50)
        assert isinstance(first, Admitted) and swept == []
        assert await room.begin(ANN, 200) == Refused(507, NO_ROOM)
        room.end(first, files=1, size=50)
        monkeypatch.setattr(uploads, "TIDIED_SECONDS", 0.0)
        assert await room.begin(BEN, 200) == Refused(507, NO_ROOM)  # what is there is too young to go
        assert len(swept) == 1
        (folder / "old" / "image.png").unlink()
        assert isinstance(await room.begin(BEN, 200), Admitted)

    asyncio.run(begun())


def test_a_folder_of_the_users_own_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a server that refuses all uploads because of what else is in a folder of its operator's."""
    (tmp_path / "film").write_bytes(b"x" * 5000)
    monkeypatch.setenv(folder_of_uploads.VARIABLE, str(tmp_path))
    assert isinstance(asyncio.run(Uploads(100, 0, FOLDER).begin(ANN, 10)), Admitted)

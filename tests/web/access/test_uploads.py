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
from uso.web.access.stack import guarded
from uso.web.access.uploads import (
    MOST_BYTES,
    MOST_FILES,
    NO_ROOM,
    REMEMBERED_PEOPLE,
    SLOT_SECONDS,
    SLOTS,
    Ration,
    Refused,
    Taken,
    Uploads,
)
from uso.web.settings import ServerSettings
from uso.web.store import uploads as scratch

ANN, BEN = asker_at("198.51.100.7"), asker_at("203.0.113.9")
WHILE = SLOTS * SLOT_SECONDS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of uploads, private to this process as far as it can tell."""
    made = tmp_path / f"{scratch.PREFIX}test"
    made.mkdir()
    monkeypatch.setenv(scratch.VARIABLE, str(made))
    monkeypatch.setenv("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
    return made


@pytest.fixture
def guard(folder: Path, tmp_path: Path) -> Callable[..., Any]:
    """`guard(...)`: a Gradio page with its upload route, behind a guard with these settings."""

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
    ration = Ration(3, 1000, clock=lambda: now[0])
    for _ in range(3):
        assert ration.wait("a", 10) == 0
        ration.count("a", ration.now(), 1, 10)
    assert 0 < ration.wait("a", 10) <= WHILE and ration.wait("b", 10) == 0
    ration.count("b", ration.now(), 1, 900)
    assert ration.wait("b", 100) == 0 < ration.wait("b", 101)
    ration.count("b", ration.now(), 0, -500)  # so much was not sent after all
    assert ration.wait("b", 600) == 0
    now[0] += WHILE - SLOT_SECONDS - 1
    assert ration.wait("a", 10) > 0
    now[0] += SLOT_SECONDS + 1
    assert ration.wait("a", 10) == 0


def test_the_count_has_bounded_memory() -> None:
    """Catches a server that is filled up by many addresses, or by many small files of one."""
    now = [0.0]
    ration = Ration(10**9, 10**12, clock=lambda: now[0])
    for second in range(5000):
        now[0] = float(second)
        ration.count("a", ration.now(), 1, 1)
    assert len(ration._people["a"]) <= SLOTS
    for number in range(REMEMBERED_PEOPLE + 100):
        ration.count(str(number), ration.now(), 1, 1)
    assert len(ration._people) == REMEMBERED_PEOPLE


def test_one_person_may_not_go_on_for_ever(guard: Callable[..., Any]) -> None:
    """Catches a stranger who fills the disk with many small files, one at a time or many in one; others go on."""
    app = guard()
    with TestClient(app, client=("198.51.100.7", 1)) as client:
        assert put(client, *[1] * (MOST_FILES - 1)).status_code == 200
        assert put(client).status_code == 200
        answer = put(client)
        assert answer.status_code == 429 and 0 < int(answer.headers["retry-after"]) <= WHILE
        sentence = f"At most {MOST_FILES} files and 1 GB in 10 min are taken from one person. Try again in "
        assert answer.json()["detail"].startswith(sentence)
    with TestClient(app, client=("203.0.113.9", 1)) as other:
        assert put(other).status_code == 200


def test_images_in_messages_to_tools_are_uploads_too(guard: Callable[..., Any]) -> None:
    """Catches a way around the ration: an assistant's images come inside its calls, and are kept as files."""

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
        rationed = Uploads(10**8, 0)
        taken = [await rationed.begin(ANN, None) for _ in range(MOST_BYTES // 10**8 + 1)]
        assert [type(one) for one in taken] == [Taken] * 10 + [Refused]
        assert isinstance(await rationed.begin(BEN, None), Taken)
        for one in taken[:10]:
            assert isinstance(one, Taken)
            rationed.end(one, files=1, size=5)
        assert isinstance(await rationed.begin(ANN, None), Taken)

    asyncio.run(begun())


def test_who_sits_at_the_machine_is_not_rationed(folder: Path) -> None:
    """Catches a person who is held up on a server of their own."""

    async def begun() -> set[type]:
        rationed = Uploads(10**6, 0)
        asker = asker_at("127.0.0.1", local=True)
        return {type(await rationed.begin(asker, 10)) for _ in range(MOST_FILES * 2)}

    assert asyncio.run(begun()) == {Taken}


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
    real = scratch.sweep

    def sweep(where: Path, now: float | None = None, most: int = 0) -> int:
        swept.append(most)
        return real(where, now, most)

    monkeypatch.setattr(scratch, "sweep", sweep)

    async def begun() -> None:
        room = Uploads(200, 0, most_held=1000)
        first = await room.begin(ANN, 50)
        assert isinstance(first, Taken) and swept == []
        assert await room.begin(ANN, 200) == Refused(507, NO_ROOM)
        room.end(first, files=1, size=50)
        monkeypatch.setattr(uploads, "TIDIED_SECONDS", 0.0)
        assert await room.begin(BEN, 200) == Refused(507, NO_ROOM)  # what is there is too young to go
        assert len(swept) == 1
        (folder / "old" / "image.png").unlink()
        assert isinstance(await room.begin(BEN, 200), Taken)

    asyncio.run(begun())


def test_a_folder_of_the_users_own_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a server that refuses all uploads because of what else is in a folder that it was told to use."""
    (tmp_path / "film").write_bytes(b"x" * 5000)
    monkeypatch.setenv(scratch.VARIABLE, str(tmp_path))
    assert isinstance(asyncio.run(Uploads(100, 0, most_held=1000).begin(ANN, 10)), Taken)

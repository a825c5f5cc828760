"""From raw values to a job: which values are refused, which files are opened, and how a request is admitted."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.scripted import PATIENCE, Script, ledger_of, queue_of, until
from tests.support.visitor import visitor
from uso import output
from uso.config import ModelConfig, load_model_config
from uso.errors import ImageError, RequestError, USOError
from uso.request.request import GenerationRequest
from uso.request.translation import Translator
from uso.web.access.identity import asker_of
from uso.web.api import calls as calls_module
from uso.web.api.calls import FILTERED, Calls, Inputs, request_from
from uso.web.api.files import uploaded
from uso.web.jobs import admission
from uso.web.jobs.admission import LimitError
from uso.web.jobs.safety import Safety
from uso.web.settings import ServerSettings
from uso.web.store import history


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"width": 500}, "Width is 500; a whole number from 128 to 256 is allowed."),
        ({"width": 200.5}, "Width is 200.5; a whole number"),
        ({"height": 200}, "Height is 200; it must be a multiple of 16"),
        ({"height": "tall"}, "Height is 'tall'; a whole number"),
        ({"num_inference_steps": 51}, "Number of steps is 51; a whole number from 1 to 50"),
        ({"guidance_scale": 9}, "Guidance is 9; a number from 1 to 5 is allowed."),
        ({"content_size": 32}, "Content reference size is 32"),
        ({"seed": -2}, "Seed is -2; 0 to 4294967295 is allowed"),
        ({"prompt": ["a"]}, "The prompt must be text, not list."),
        ({"keep_input_size": True}, "Keep input size needs a content image."),
        ({"style_image": {"path": "/etc/hostname"}}, "The image was not uploaded to this page."),
        ({"style_image": "/etc/hostname"}, "The image was not uploaded to this page."),
    ],
)
def test_refusals_are_sentences(demo_config: ModelConfig, values: dict[str, Any], sentence: str) -> None:
    """Catches a value that is clamped in silence, or refused in Gradio's words."""
    with pytest.raises(RequestError) as caught:
        request_from(demo_config, Inputs(**values))
    assert str(caught.value).startswith(sentence)


def test_whole_numbers_that_arrive_as_floats_are_taken(demo_config: ModelConfig) -> None:
    """Catches a page that refuses what its own sliders send, and an emptied seed field."""
    request = request_from(demo_config, Inputs(width=256.0, num_inference_steps=3.0, seed=None, prompt=None))
    assert (request.width, request.num_inference_steps, request.prompt) == (256, 3, "")
    assert 0 <= request.seed < 2**32


def test_styles_keep_their_order_and_a_lone_extra_style_counts(demo_config: ModelConfig, upload: Any) -> None:
    """Catches two styles that change places, and an extra style that is lost without a first."""
    first, second = upload("first.png"), upload("second.png", 100, 100)
    both = request_from(demo_config, Inputs(style_image=first, extra_style_image=second))
    assert [image.name for image in both.style_images] == ["first.png", "second.png"]
    alone = request_from(demo_config, Inputs(extra_style_image=second))
    assert [image.name for image in alone.style_images] == ["second.png"]


def test_strengths_stay_with_their_styles(demo_config: ModelConfig, upload: Any) -> None:
    """Catches a lone extra style that gets the other's strength, and a value that is refused only with its image."""
    one, other = upload("a.png"), upload("b.png")
    both = {"style_strength": 0.5, "extra_style_strength": 1.5}
    for images, strengths in (
        ({"style_image": one, "extra_style_image": other}, (0.5, 1.5)),
        ({"style_image": one}, (0.5,)),
        ({"extra_style_image": other}, (1.5,)),
        ({}, ()),
    ):
        assert request_from(demo_config, Inputs(**images, **both)).style_strengths == strengths
    assert request_from(demo_config, Inputs(style_image=one, style_strength=None)).style_strengths == (1,)
    with pytest.raises(RequestError, match=r"^Extra style strength is 2\.5; a number from 0 \(left out\) to 2 "):
        request_from(demo_config, Inputs(extra_style_strength=2.5))


def test_guidance_is_left_out_where_the_model_takes_none() -> None:
    """Catches a disabled field whose value makes every request of schnell fail."""
    assert request_from(load_model_config("flux-schnell"), Inputs(guidance_scale=4.0)).guidance_scale is None


def test_files_are_opened_only_where_uploads_are(uploads: Path, tmp_path: Path) -> None:
    """Catches a path from a browser that leads out of the folder, by name or by a link."""
    outside = tmp_path / "secret.png"
    Image.new("RGB", (32, 32)).save(outside)
    (uploads / "link.png").symlink_to(outside)
    for path in (outside, uploads / ".." / "secret.png", uploads / "link.png"):
        with pytest.raises(ImageError, match="not uploaded to this page"):
            uploaded({"path": str(path)})
    with pytest.raises(ImageError, match="gone.png is no longer on the server. Choose its file again."):
        uploaded({"path": str(uploads / "gone.png")})


# Admission.


@contextmanager
def calls_of(tmp_path: Path, config: ModelConfig, **settings: Any) -> Iterator[Calls]:
    """Calls to a queue that has not started, so that every job waits."""
    queue = queue_of(lambda on_progress: Script(), ServerSettings(output=tmp_path, **settings))
    calls = Calls(config, queue, ledger_of(queue))
    yield calls
    queue.close()
    ledger_of(queue).close()


def submit(calls: Calls, inputs: Inputs) -> Any:
    return asyncio.run(calls.submit(inputs, visitor()))


def test_a_refused_request_reads_no_image(
    tmp_path: Path, demo_config: ModelConfig, upload: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a full queue that reads and decodes images before it says so."""
    read: list[Any] = []
    monkeypatch.setattr(calls_module, "uploaded", lambda *arguments: read.append(arguments))
    with calls_of(tmp_path, demo_config, max_waiting=1) as calls:
        submit(calls, Inputs())
        read.clear()
        with pytest.raises(LimitError, match="1 requests are waiting"):
            submit(calls, Inputs(style_image=upload()))
        assert not read


def test_images_that_wait_are_counted_before_they_are_read(
    tmp_path: Path, demo_config: ModelConfig, upload: Any, uploads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a memory that fills up with images whose requests are refused only after they were read."""
    image = upload()
    size = (uploads / "image.png").stat().st_size
    monkeypatch.setattr(admission, "MAX_WAITING_BYTES", 3 * size)
    with calls_of(tmp_path, demo_config) as calls:
        submit(calls, Inputs(content_image=image, style_image=image))
        monkeypatch.setattr(calls_module, "uploaded", lambda *arguments: pytest.fail("read"))
        with pytest.raises(LimitError, match="Too many large images are waiting."):
            submit(calls, Inputs(content_image=image, style_image=image))
        assert calls.queue.status.waiting == 1


def test_a_malformed_request_gives_its_place_back(tmp_path: Path, demo_config: ModelConfig) -> None:
    """Catches places that malformed requests keep for ever, until nobody is admitted any more."""
    with calls_of(tmp_path, demo_config, max_waiting=1) as calls:
        for _ in range(3):
            with pytest.raises(RequestError, match="Width is 500"):
                submit(calls, Inputs(width=500))
            with pytest.raises(ImageError, match="not uploaded"):
                submit(calls, Inputs(style_image="/etc/hostname"))
        assert submit(calls, Inputs()).status.state == "queued"


@contextmanager
def slow_images(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """While this lasts, reading the images of a request waits for its end; the prompts whose images are being read."""
    go_on = threading.Event()
    reading: list[str] = []

    def slow(config: ModelConfig, inputs: Inputs, *rest: Any) -> GenerationRequest:
        if inputs.style_image is not None:
            reading.append(inputs.prompt)
            assert go_on.wait(PATIENCE)
        return request_from(config, inputs, *rest)

    monkeypatch.setattr(calls_module, "request_from", slow)
    try:
        yield reading
    finally:
        go_on.set()


def test_limits_hold_while_images_are_read(
    tmp_path: Path, demo_config: ModelConfig, upload: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches requests that are all admitted while none of them is in the queue yet, and one that waits for the readers
    to hear that the queue is full."""
    inputs = Inputs("hers", style_image=upload())
    with calls_of(tmp_path, demo_config, max_waiting=5, max_waiting_per_person=3) as calls:

        async def many() -> list[Any]:
            with slow_images(monkeypatch) as reading:
                hers = [asyncio.ensure_future(calls.submit(inputs, visitor())) for _ in range(8)]
                while sum(one.done() for one in hers) < 5 or not reading:
                    await asyncio.sleep(0.01)
                assert reading == ["hers"]
            return await asyncio.gather(*hers, return_exceptions=True)

        results = asyncio.run(many())
        refused = [str(one) for one in results if isinstance(one, USOError)]
        assert len(refused) == 5 and all(one.startswith("3 requests of yours are waiting") for one in refused)
        assert calls.queue.status.waiting == 3


def test_slow_images_hold_up_nobody_else(
    tmp_path: Path, demo_config: ModelConfig, upload: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches images that are cheap to send and dear to decode, behind which everybody's requests wait, text too."""
    image = upload()
    with calls_of(tmp_path, demo_config) as calls:

        async def many() -> None:
            with slow_images(monkeypatch) as reading:
                hers = [
                    asyncio.ensure_future(calls.submit(Inputs("hers", style_image=image), visitor(host="198.51.100.1")))
                    for _ in range(4)
                ]
                while not reading:
                    await asyncio.sleep(0.01)
                for host in ("198.51.100.1", "198.51.100.2"):  # without images not even she waits
                    job = await asyncio.wait_for(calls.submit(Inputs("text"), visitor(host=host)), PATIENCE)
                    assert job.status.state == "queued"
                monkeypatch.setattr(calls_module, "request_from", request_from)
                his = calls.submit(Inputs("his", style_image=image), visitor(host="198.51.100.2"))
                assert (await asyncio.wait_for(his, PATIENCE)).status.state == "queued"
                assert reading == ["hers"] and not any(one.done() for one in hers)
            await asyncio.gather(*hers)

        asyncio.run(many())


def test_a_filter_that_hangs_on_ones_prompts_holds_up_nobody_else(tmp_path: Path, demo_config: ModelConfig) -> None:
    """Catches a few prompts on which the filter hangs, and everybody who waits behind them."""
    go_on = threading.Event()
    safety = Safety(lambda prompt, image: "late" if prompt == "hang" and go_on.wait(PATIENCE) else None)
    queue = queue_of(lambda on_progress: Script(), ServerSettings(output=tmp_path), safety=safety)
    calls = Calls(demo_config, queue, ledger_of(queue))

    async def many() -> None:
        hang = [calls.submit(Inputs("hang"), visitor(host="198.51.100.1")) for _ in range(FILTERED + 2)]
        hers = [asyncio.ensure_future(one) for one in hang]
        await asyncio.sleep(0.1)
        his = await asyncio.wait_for(calls.submit(Inputs("a fox"), visitor(host="198.51.100.2")), PATIENCE)
        assert his.status.state == "queued" and not any(one.done() for one in hers)
        go_on.set()
        assert {str(one) for one in await asyncio.gather(*hers, return_exceptions=True)} == {
            "Blocked by this server's filter: late"
        }

    asyncio.run(many())
    queue.close()
    ledger_of(queue).close()


def test_a_caller_who_leaves_keeps_no_place(
    tmp_path: Path, demo_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a place that is never given back because its caller was gone before it became a job."""
    go_on = threading.Event()

    def slow(*arguments: Any) -> GenerationRequest:
        assert go_on.wait(PATIENCE)
        raise RequestError("Malformed.")

    monkeypatch.setattr(calls_module, "request_from", slow)
    with calls_of(tmp_path, demo_config, max_waiting=1) as calls:

        async def leave() -> None:
            call = asyncio.ensure_future(calls.submit(Inputs(), visitor()))
            while not calls.queue._places:
                await asyncio.sleep(0.01)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)

        asyncio.run(leave())
        go_on.set()
        until(lambda: not calls.queue._places)
        monkeypatch.undo()
        assert submit(calls, Inputs()).status.state == "queued"


def test_refusals_are_counted_by_their_reason(tmp_path: Path, demo_config: ModelConfig) -> None:
    """Catches refusals that the metrics miss, and a malformed request that does not count for the rate."""
    reasons: list[str] = []
    queue = queue_of(lambda on_progress: Script(), ServerSettings(output=tmp_path, rate=2))
    calls = Calls(demo_config, queue, ledger_of(queue), reasons.append)
    for inputs in (Inputs(width=500), Inputs(), Inputs()):
        with suppress(USOError):
            submit(calls, inputs)
    assert reasons == ["RequestError", "rate"]
    queue.close()
    ledger_of(queue).close()


def test_a_prompt_is_translated_before_the_model_reads_it(tmp_path: Path, demo_config: ModelConfig) -> None:
    """Catches a model or a filter that reads the typed prompt, and a record or a history that lost one of the two."""
    script, seen = Script(), []
    queue = queue_of(
        lambda on_progress: script,
        ServerSettings(output=tmp_path),
        translator=Translator(lambda prompt: "A fox."),
        safety=Safety(lambda prompt, image: seen.append(prompt)),
    )
    calls, ledger = Calls(demo_config, queue, ledger_of(queue)), ledger_of(queue)
    queue.start()
    try:
        job = submit(calls, Inputs(prompt="狐狸"))
        until(lambda: job.status.over)
        assert (script.seen, seen) == (["A fox."], ["A fox.", "A fox."])
        assert job.status.notes == ("The prompt was translated: A fox.",)
        (picture,) = job.status.pictures
        record = output.read(picture.path).record
        assert (record["request"]["prompt"], record["typed_prompt"]) == ("A fox.", "狐狸")
        (remembered,) = history.recent(ledger, asker_of(visitor()).owner)
        assert remembered.prompt == "狐狸"
    finally:
        queue.close()
        queue.join(0.0)
        ledger.close()


def test_an_unread_script_is_refused_at_the_door(tmp_path: Path, demo_config: ModelConfig) -> None:
    with calls_of(tmp_path, demo_config) as calls, pytest.raises(RequestError, match="reads English"):
        submit(calls, Inputs(prompt="雪地里的狐狸"))

"""The three encoders against networks written down in numpy, and the bugs that would move their numbers.

The encoders are tiny and random, but saved as the released ones are and read by the loaders that read those.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import close_session, constants
from PIL import Image
from safetensors.torch import load_file, save

from tests.conftest import draw_picture
from tests.support import numpy_towers as towers
from tests.support.hub_server import HubServer, Repository
from tests.support.tiny_encoders import (
    CSD_LAYERS,
    CSD_SIDE,
    HEADS,
    LAYERS,
    SIDE,
    csd_checkpoint,
    save_clip,
    save_csd,
    save_dino,
)
from uso.errors import CheckpointError, MissingWeightsError
from uso.evaluation.metrics import clip, csd, dino
from uso.evaluation.metrics.encoders import Files, find_files
from uso.weights.hub.cache import Hub

CLOSE = 2e-5
"""Between float32 and numpy's float64."""
MOVED = 1e-3
"""What every bug below moves a cosine by, at least."""

PROMPT = "A robot on the beach."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders")
    save_clip(folder / "clip")
    save_dino(folder / "dino")
    save_csd(folder / "csd.bin")
    return folder


def pictures() -> list[Image.Image]:
    """Wide and high, so that a crop takes something away, and two whose halves are odd."""
    return [draw_picture(*size, seed) for seed, size in enumerate([(90, 61), (61, 100), (51, 48), (64, 64)])]


def doubles(state: dict[str, torch.Tensor]) -> towers.State:
    return {name: tensor.double().numpy() for name, tensor in state.items()}


def cosines(vectors: list[towers.Array]) -> towers.Array:
    stacked = np.stack([towers.unit(each) for each in vectors])
    return np.asarray(stacked @ stacked.T)


CLIP_MEAN, CLIP_STD = np.array(csd.MEAN), np.array(csd.STD)
DINO_MEAN, DINO_STD = np.array(dino.MEAN), np.array(dino.STD)


def test_clip_gives_the_cosines_of_the_paper(folder: Path) -> None:
    """Catches another crop, mean, filter or activation, a missing projection, and the wrong token of a prompt."""
    files = find_files(str(folder / "clip"), clip.PUBLISHED)
    encoder, state = clip.ClipEncoder(files), doubles(load_file(files.weights))
    right = [towers.prepared(each, SIDE, SIDE, CLIP_MEAN, CLIP_STD) for each in pictures()]
    expected = cosines([towers.clip_picture(each, state, LAYERS, HEADS) for each in right])
    found = encoder.vectors(pictures())
    np.testing.assert_allclose(found @ found.T, expected, atol=CLOSE)

    ids = encoder.tokenizer(PROMPT)["input_ids"]
    text = towers.unit(towers.clip_text(ids, state, LAYERS, HEADS))
    first = towers.unit(towers.clip_picture(right[0], state, LAYERS, HEADS))
    assert float(encoder.text_vectors([PROMPT])[0] @ found[0]) == pytest.approx(text @ first, abs=CLOSE)

    squeezed = [towers.prepared(each, SIDE, SIDE, CLIP_MEAN, CLIP_STD, crop=False) for each in pictures()]
    other_mean = [towers.prepared(each, SIDE, SIDE, DINO_MEAN, DINO_STD) for each in pictures()]
    for wrong in (squeezed, other_mean):
        moved = cosines([towers.clip_picture(each, state, LAYERS, HEADS) for each in wrong])
        assert np.abs(moved - expected).max() > MOVED
    raw = np.stack([towers.clip_picture(each, state, LAYERS, HEADS) for each in right])
    assert np.abs(raw @ raw.T - expected).max() > MOVED  # without L2


def test_dino_gives_the_class_token(folder: Path) -> None:
    """Catches a pooler or a mean over patches in the class token's place, no crop, another mean, and the epsilon of the
    converted config."""
    files = find_files(str(folder / "dino"), dino.PUBLISHED)
    assert files.weights.name == "pytorch_model.bin"
    encoder = dino.DinoEncoder(files)
    assert encoder.model.layernorm.eps == 1e-6
    state = doubles(torch.load(files.weights, weights_only=True))
    short = SIDE * 256 // 224

    def tokens(mean: towers.Array, std: towers.Array, crop: bool = True) -> list[towers.Array]:
        ready = [towers.prepared(each, SIDE, short, mean, std, crop) for each in pictures()]
        return [towers.dino_tokens(each, state, LAYERS, HEADS) for each in ready]

    right = tokens(DINO_MEAN, DINO_STD)
    expected = cosines([each[0] for each in right])
    found = encoder.vectors(pictures())
    np.testing.assert_allclose(found @ found.T, expected, atol=CLOSE)
    pooled = cosines([np.tanh(each[0] @ np.linspace(-1, 1, 32 * 32).reshape(32, 32)) for each in right])
    patches = cosines([each[1:].mean(axis=0) for each in right])
    squeezed = cosines([each[0] for each in tokens(DINO_MEAN, DINO_STD, crop=False)])
    other_mean = cosines([each[0] for each in tokens(CLIP_MEAN, CLIP_STD)])
    for moved in (pooled, patches, squeezed, other_mean):
        assert np.abs(moved - expected).max() > MOVED


def test_csd_gives_the_style_head(folder: Path) -> None:
    """Catches style and content heads that are swapped, a missing L2, another mean, and no crop."""
    state = doubles(csd_checkpoint())
    encoder = csd.load_csd(find_files(str(folder / "csd.bin"), csd.PUBLISHED).weights)

    def vectors(head: str = "style", mean: towers.Array = CLIP_MEAN, crop: bool = True) -> list[towers.Array]:
        ready = [towers.prepared(each, CSD_SIDE, CSD_SIDE, mean, CLIP_STD, crop) for each in pictures()]
        return [towers.csd_style(each, state, CSD_LAYERS, head) for each in ready]

    expected = cosines(vectors())
    found = encoder.vectors(pictures())
    np.testing.assert_allclose(found @ found.T, expected, atol=CLOSE)
    raw = np.stack(vectors())
    for moved in (
        cosines(vectors("content")),
        raw @ raw.T,
        cosines(vectors(mean=DINO_MEAN)),
        cosines(vectors(crop=False)),
    ):
        assert np.abs(moved - expected).max() > MOVED


def test_prompts_longer_than_clip_reads_are_counted(folder: Path) -> None:
    """Catches a long prompt that stops a run, or is cut without a word."""
    files = find_files(str(folder / "clip"), clip.PUBLISHED)
    long = "a robot and a castle " * 40
    assert clip.count_cut(files, [PROMPT, long]) == 1
    assert clip.ClipEncoder(files).text_vectors([long]).shape == (1, 16)


def broken(folder: Path, source: Path, change: str) -> Files:
    shutil.copytree(source, folder)
    path = folder / "pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    if change == "missing":
        del state["layernorm.weight"]
    else:
        state["head.weight"] = torch.zeros(2)
    torch.save(state, path)
    return find_files(str(folder), dino.PUBLISHED)


@pytest.mark.parametrize(("change", "says"), [("missing", "missing keys"), ("more", "unexpected keys")])
def test_a_network_takes_all_of_its_file_or_none(folder: Path, tmp_path: Path, change: str, says: str) -> None:
    """Catches a layer of random numbers in the place of one that the file lacks."""
    with pytest.raises(CheckpointError, match=says):
        dino.DinoEncoder(broken(tmp_path / "dino", folder / "dino", change))


def test_encoders_that_are_not_there_are_refused(tmp_path: Path) -> None:
    """Catches a traceback of the Hub's client; the tests are offline."""
    with pytest.raises(CheckpointError, match="is not there"):
        find_files(str(tmp_path / "nothing"), dino.PUBLISHED)
    with pytest.raises(CheckpointError, match="holds neither"):
        find_files(str(tmp_path), dino.PUBLISHED)
    with pytest.raises(MissingWeightsError):
        find_files(None, dino.PUBLISHED)


@pytest.mark.parametrize("safe", [True, False])
def test_published_encoders_are_fetched_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, safe: bool
) -> None:
    """Catches a `.bin` that is fetched although there are safetensors, files that nobody reads, a commit that is not
    recorded, and a second run that needs the network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    held = {path.name: path.read_bytes() for path in (folder / "dino").iterdir()} | {
        "README.md": b"",
        "tf_model.h5": b"",
    }
    if safe:
        held["model.safetensors"] = save(torch.load(folder / "dino" / "pytorch_model.bin", weights_only=True))
    with HubServer() as server:
        server.repositories[dino.PUBLISHED.repo] = Repository(held, commit="3" * 40)
        hub = Hub(endpoint=server.url, cache=tmp_path, token=False, offline=False)
        files = find_files(None, dino.PUBLISHED, hub)
        assert set(server.sent) == {"config.json", "model.safetensors" if safe else "pytorch_model.bin"}
        close_session()
    assert files.origin["commit"] == "3" * 40 and files.origin["revision"] == "main"
    assert dino.DinoEncoder(files).vectors(pictures()[:1]).shape == (1, 32)
    assert find_files(None, dino.PUBLISHED, Hub(endpoint="http://127.0.0.1:9", cache=tmp_path)).origin == files.origin

"""Features: what is refused before anything is encoded, and what is read, hashed and kept."""

from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from PIL import Image

from tests.conftest import draw_picture
from tests.support.tiny_training import tiny_config, training_pipeline, write_rows
from uso.errors import ConfigError
from uso.images.pixels import upright_size
from uso.training.data import files
from uso.training.data.features import FeatureCache, check_sources
from uso.training.data.files import file_sha256
from uso.training.data.samples import Feature
from uso.training.data.source import RowSource
from uso.training.prepare import assemble, read_data


def test_damaged_pictures_are_named_before_anything_is_encoded(tmp_path: Path) -> None:
    """Catches a run that ends in the middle of the encoding; a whole picture is no fault."""
    rows = write_rows(tmp_path / "rows", 2)
    whole = [path for path in sorted(rows.parent.glob("*.png")) if "content" not in path.name]
    pipeline = training_pipeline()
    check_sources([Feature("latents", path=path) for path in whole], pipeline)
    damaged = rows.parent / "content-1.png"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"content-1\.png.*python -m uso train\.data check"):
        check_sources([Feature("latents", path=path) for path in [*whole, damaged]], pipeline)
    with pytest.raises(ConfigError, match=r"'house house.*tokens; this model reads 24"):
        check_sources([Feature("prompt", prompt="house " * 60)], pipeline)


def test_a_picture_is_hashed_once_per_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches hundreds of gigabytes that every process reads at every start; and a changed picture that is not seen."""
    rows = write_rows(tmp_path / "rows", 2)
    config, pipeline = tiny_config(tmp_path, rows), training_pipeline()
    hashed: list[str] = []

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return file_sha256(path)

    monkeypatch.setattr(files, "file_sha256", counted)

    def missing() -> int:
        source, cache = RowSource(config, lambda _: None), FeatureCache(config.data.cache, pipeline)
        found = cache.missing(source.cached())
        cache.encode(found)
        return len(found)

    assert missing() == 9 and len(hashed) == 6  # three prompts, the empty one among them
    assert missing() == 0 and len(hashed) == 6  # another process, or another start
    draw_picture(48, 48, seed=99).save(rows.parent / "target-1.png")
    with (tmp_path / "cache" / "hashes.jsonl").open("a", encoding="utf-8") as index:
        index.write('["cut o')
    assert missing() == 1 and hashed[6:] == ["target-1.png"]


def test_what_is_not_cached_is_encoded_at_every_step(tmp_path: Path) -> None:
    """Catches a cache of chosen parts whose batches are others, or that writes everything all the same; and features in
    inference mode, which nothing can be learned from."""
    rows = write_rows(tmp_path / "rows", 2)
    batches = []
    for name, kinds in (("all", ["prompt", "latents", "style"]), ("none", []), ("one", ["prompt"])):
        folder = tmp_path / name
        config = tiny_config(folder, rows)
        config = config.model_copy(update={"data": config.data.model_copy(update={"cached": tuple(kinds)})})
        source, held_out = read_data(config)
        trainer = assemble(training_pipeline(), config, source, held_out, PartialState(cpu=True))
        batches.append(trainer.batches.take())
        trainer.update()
        trainer.batches.close()
        written = {path.parent.parent.name for path in folder.rglob("*.safetensors")}
        assert written == set(kinds)
        assert (trainer.pipeline.text_encoder is None) == ("prompt" in kinds)
    whole = batches[0]
    for other in batches[1:]:
        assert torch.equal(whole.latents, other.latents) and torch.equal(whole.prompt_embeds, other.prompt_embeds)
        for one, two in zip(whole.styles, other.styles, strict=True):
            assert all(torch.equal(one[layer], two[layer]) for layer in one)


@pytest.mark.parametrize("kind", ["png", "late-exif", "jpeg", "webp"])
def test_sizes_are_those_of_whole_files(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a size from a head that leaves out an orientation, and, for PNG and JPEG, a whole file that is read."""
    image, exif = Image.effect_noise((1200, 900), 60).convert("RGB"), Image.Exif()
    exif[0x0112] = 6  # on its side
    path = tmp_path / f"picture.{'png' if 'exif' in kind else kind}"
    image.save(path, quality=98, exif=b"" if kind == "png" else exif)
    if kind == "late-exif":
        data = path.read_bytes()
        at = data.index(b"eXIf") - 4
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        path.write_bytes(data[:at] + data[end:-12] + data[at:end] + data[-12:])
    assert upright_size(path.read_bytes()) == ((1200, 900) if kind == "png" else (900, 1200))
    expected = upright_size(path.read_bytes())
    assert path.stat().st_size > 2**17
    if kind != "webp":
        monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("all of it was read"))
    assert files.picture_size(path) == expected

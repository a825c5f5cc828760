"""Validation pictures."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from PIL import Image

from tests.support.tiny_training import (
    differing,
    tiny_batches,
    tiny_config,
    training_pipeline,
    write_rows,
)
from uso.evaluation.sheet import GAP
from uso.training.data.features import FeatureCache
from uso.training.data.samples import read_samples
from uso.training.loop.pictures import MODES, Validation
from uso.training.loop.trainer import Trainer


def test_validation_draws_every_mode_through_the_pipeline(tmp_path: Path) -> None:
    """Catches pictures of the weights before the last ones, a seed that wanders, and training spoiled by them."""
    rows = write_rows(tmp_path / "rows", 2)
    config = tiny_config(tmp_path, rows, steps=2, ema=0.9, validation={"every": 1, "steps": 2, "count": 1})
    pipeline = training_pipeline()
    batches = tiny_batches(pipeline, config)
    cache = batches.features
    assert isinstance(cache, FeatureCache)
    held_out = read_samples(rows, config.data.model_copy(update={"max_styles": 2}), ("style", "content"))
    validation = Validation(pipeline, config, held_out, cache)
    cache.encode(cache.missing(validation.features()))
    trainer = Trainer(pipeline, config, batches, validation=validation)
    own = [parameter.detach().clone() for parameter in trainer.parameters.values()]
    first, again = ([drawn.image.tobytes() for drawn in validation.draw(trainer.autocast)] for _ in range(2))
    assert first == again
    assert differing(own, list(trainer.parameters.values())) == 0
    trainer.run()
    folder = config.folder / "validation"
    assert {path.name for path in folder.iterdir()} == {"step-00000001", "step-00000002"}
    modes = {path.name for path in (folder / "step-00000002").iterdir()}
    expected = [mode for mode in MODES if mode != "styles"]  # one row has one style
    assert modes == {"sheet.png", *(f"{mode}-0.png" for mode in expected)}
    with Image.open(folder / "step-00000002" / "sheet.png") as sheet:
        assert sheet.width == (2 + len(expected)) * (32 + GAP) - GAP  # content and style image, then every mode
    pictures = [(folder / f"step-0000000{step}" / "content_style-0.png").read_bytes() for step in (1, 2)]
    assert pictures[0] != pictures[1]


def test_validation_never_asks_the_text_encoders(tmp_path: Path) -> None:
    """Catches prompts that modulation tables push out of what is remembered: the encoders are gone by then.
    Plants prompts that are all remembered before the first picture."""
    rows = write_rows(tmp_path / "rows", 3)
    config = tiny_config(tmp_path, rows, validation={"every": 1, "steps": 2, "count": 3})
    pipeline = training_pipeline()
    cache = FeatureCache(config.data.cache, pipeline)
    held_out = read_samples(rows, config.data, ("style", "content"))
    validation = Validation(pipeline, config, held_out, cache)
    cache.encode(cache.missing(validation.features()))
    pipeline.text_encoder = pipeline.text_encoder_2 = None
    pipeline.remembered.limit = 20_000  # less than all of it, and more than one picture's share
    drawn = list(validation.draw(nullcontext))
    assert len(drawn) == 3 * len(MODES)
    for feature in validation.features():
        prompt = cache.load(feature)
        pipeline.remember_prompt(feature.prompt, prompt["prompt_embeds"][None], prompt["pooled"][None])
    with pytest.raises(TypeError, match="NoneType"):
        all(list(pipeline.stream(request)) for _, _, request, _ in validation.requests())

"""The examples and tips: every mode has one, and the model of the page can make it."""

import re
from pathlib import Path

import pytest

from tools.demo.world.scenes import caption_words
from tools.demo.world.styles import STYLES
from uso.config import ExampleSet, load_model_config
from uso.web.api.calls import request_from
from uso.web.page.examples import ExampleEvents
from uso.web.page.texts import EXAMPLES, PROMPTS, TIPS


@pytest.mark.parametrize("examples", EXAMPLES)
def test_examples_show_every_mode(examples: ExampleSet) -> None:
    """Catches a mode without an example, and a picture that is not there."""
    modes = set()
    for example in EXAMPLES[examples]:
        styles = [name for name in (example.style, example.extra_style) if name]
        modes.add((bool(example.content), len(styles), bool(example.prompt)))
        for name in (example.content, *styles, example.result):
            path = example.path(name)
            assert path is None or path.is_file(), path
    text, subject, style, two_styles = (False, 0, True), (True, 0, True), (False, 1, True), (False, 2, True)
    with_prompt, layout_kept, with_two = (True, 1, True), (True, 1, False), (True, 2, True)
    assert modes >= {text, subject, style, two_styles, with_prompt, layout_kept, with_two}
    (by_words,) = (example for example in EXAMPLES[examples] if example.mode == "Restyled by words")
    assert by_words.content and by_words.keep_input_size and not by_words.style
    assert re.match(r"Transform the style into|an? [\w ]+ of an? ", by_words.prompt)


def test_drawn_examples_are_in_words_that_the_demo_knows() -> None:
    """Catches a prompt that the demo model can make nothing of: its captions hold a few hundred words and are short."""
    known = caption_words(style.phrase for style in STYLES)
    quoted = [sentence for _, tip in TIPS["drawn"] for sentence in re.findall("“(.+?)”", tip)]
    assert len(quoted) == 2
    sentences = [*(example.prompt for example in EXAMPLES["drawn"]), *quoted, *PROMPTS["drawn"]]
    prompts = [re.findall(r"[\w-]+", sentence.lower()) for sentence in sentences]
    assert all(len(words) <= 20 and known.issuperset(words) for words in prompts)
    assert not known.issuperset(EXAMPLES["photographs"][1].prompt.lower().split())


@pytest.mark.parametrize(("name", "examples"), [("demo", "drawn"), ("flux-dev", "photographs")])
def test_an_example_sets_every_field_and_can_be_made(name: str, examples: ExampleSet, uploads: Path) -> None:
    """Catches a field that an earlier example filled and a later one leaves: old pictures in new requests."""
    events = ExampleEvents(load_model_config(name))
    for index, example in enumerate(EXAMPLES[examples]):
        inputs = events.example(index)
        assert all(value is not None for name, value in inputs._asdict().items() if not name.endswith("_image"))
        for name in ("content", "style", "extra_style"):
            assert (getattr(inputs, f"{name}_image") is None) == (getattr(example, name) is None)
        images = {}
        for name in ("content_image", "style_image", "extra_style_image"):
            if path := getattr(inputs, name):
                copy = uploads / Path(path).name
                copy.write_bytes(Path(path).read_bytes())
                images[name] = {"path": str(copy)}
        request = request_from(events.config, inputs._replace(**images))
        assert request.prompt == example.prompt and request.keep_input_size == example.keep_input_size
        assert (request.seed == example.seed) == (example.seed is not None)


def test_an_example_with_a_result_has_the_seed_that_gives_it() -> None:
    """Catches a card that promises a picture which another seed would have to make."""
    offered = EXAMPLES["drawn"]
    assert all((example.result is None) == (example.seed is None) for example in offered)

"""What the page offers below its columns: examples, and prompts for a model that understands few words."""

from typing import Any, NamedTuple

import gradio as gr

from uso.config import ModelConfig
from uso.language import ENGLISH, Text, spoken, tr
from uso.web.api.calls import Inputs
from uso.web.api.handlers import AT_ONCE, plain_errors
from uso.web.page import html, scripts
from uso.web.page.inputs import KEEP, example_values
from uso.web.page.labels import static_html
from uso.web.page.texts import EXAMPLES, PROMPTS


class Offered(NamedTuple):
    examples: gr.Dataset
    prompts: gr.Dataset | None


def offered(config: ModelConfig) -> Offered:
    """The components."""
    title, hint = Text("Examples"), Text("One for each mode. Click one to fill in all the fields.")
    cards = [[html.card(example)] for example in EXAMPLES[config.examples]]
    examples = _dataset(title, hint, "html", cards, "examples")
    title, hint = Text("Prompts that this model understands"), Text("Click one to put it into the prompt field.")
    prompts = [[prompt] for prompt in PROMPTS[config.examples]]
    return Offered(examples, _dataset(title, hint, "textbox", prompts, "prompts") if prompts else None)


def _dataset(title: str, hint: str, kind: str, samples: list[list[str]], name: str) -> gr.Dataset:
    """All samples, below a heading."""
    gr.HTML(static_html(lambda: html.heading(title, hint)))
    return gr.Dataset(
        show_label=False,
        components=[kind],
        samples=samples,
        samples_per_page=len(samples),
        type="index",
        layout="gallery",
        elem_id=name,
    )


class ExampleEvents:
    """A click fills fields in, whatever they held. Bound to one model."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config

    def example(self, index: int, *_held: Any) -> Inputs:
        """All inputs of an example."""
        return example_values(self.config, index)

    def prompt(self, index: int, *_held: Any) -> str:
        return PROMPTS[self.config.examples][index]

    def translate(self, _request: gr.Request) -> tuple[Any, Any]:
        """When the page loads, what the browser cannot translate: (the examples, the description of the picture)."""
        if spoken() == ENGLISH:
            return KEEP, KEEP
        cards = [[html.card(example)] for example in EXAMPLES[self.config.examples]]
        return gr.update(samples=cards), gr.update(alt_text=tr("The generated picture"))


def wire(page: gr.Blocks, events: ExampleEvents, parts: Offered, inputs: Inputs, picture: gr.Image) -> None:
    for dataset, event, fields in (
        (parts.examples, events.example, list(inputs)),
        (parts.prompts, events.prompt, [inputs.prompt]),
    ):
        if dataset is not None:
            dataset.click(
                plain_errors(event), [dataset, *inputs], fields, js=scripts.FILLING, preprocess=False, **AT_ONCE
            ).then(None, list(inputs), None, js=scripts.FILLED)
    page.load(plain_errors(events.translate), None, [parts.examples, picture], **AT_ONCE)

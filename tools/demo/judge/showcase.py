"""The README's contact sheet: what the demo model makes of twelve new pictures.

Nothing is selected: tasks 0 to 11 of the first condition (seen subjects and styles, new pictures; layout kept and moved
by turns), with seeds 0 to 11 and the model's own defaults.
"""

from dataclasses import replace

from PIL import Image

from tools.demo.judge.album import row_of
from tools.demo.judge.draw import draw
from tools.demo.judge.material import CONDITIONS, SIZE, draw_task
from uso.config import load_model_config
from uso.evaluation.sheet import GAP, ROWS, contact_sheet
from uso.request.request import GenerationRequest
from uso.weights.loading import load_pipeline


def sheet(model: str) -> Image.Image:
    """Twelve rows of content, style, result and truth, in two halves side by side."""
    config = load_model_config(model)
    pipeline = load_pipeline(config, device="cpu")
    request = GenerationRequest.create(config, width=SIZE, height=SIZE, content_size=SIZE, seed=0)
    tasks = [replace(draw_task(CONDITIONS[0], number), index=number) for number in range(ROWS)]
    pictures = draw(pipeline, tasks, request)
    rows = [row_of(task, {"result": picture}) for task, picture in zip(tasks, pictures, strict=True)]
    halves = [contact_sheet(rows[start::2]) for start in (0, 1)]
    whole = Image.new("RGB", (sum(half.width for half in halves) + 4 * GAP, halves[0].height), "white")
    whole.paste(halves[0], (0, 0))
    whole.paste(halves[1], (halves[0].width + 4 * GAP, 0))
    return whole

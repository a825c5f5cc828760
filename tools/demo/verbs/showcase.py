"""Write the README's contact sheet, `assets/demo-sheet.webp`: what the demo model makes of twelve new pictures.

Nothing is selected: tasks 0 to 11 of `train.evaluate`'s first condition (seen subjects and styles, new pictures; by
turns the layout kept and moved), with seeds 0 to 11 and the model's own defaults.

    python -m tools.demo_sheet [FILE] [--model NAME]
"""

import argparse
from dataclasses import replace
from pathlib import Path

from PIL import Image

from tools.demo.judge.draw import draw
from tools.demo.judge.material import CONDITIONS, SIZE, draw_task
from tools.demo.judge.sheet import ROWS, contact_sheet, row_of
from tools.demo.world.sheet import GAP
from uso.config import ROOT, load_model_config
from uso.request import GenerationRequest
from uso.weights.loading import load_pipeline

FILE = ROOT / "assets" / "demo-sheet.webp"


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


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the README's contact sheet of the demo model.")
    parser.add_argument("file", type=Path, nargs="?", default=FILE, metavar="FILE")
    parser.add_argument("--model", default="demo", metavar="NAME", help="a model's name or YAML file (demo)")
    args = parser.parse_args()
    sheet(args.model).save(args.file, quality=90, method=6)
    print(args.file)


if __name__ == "__main__":
    main()

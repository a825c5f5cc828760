"""Contact sheets: drawn data to look at, as one picture. Where it is written is the caller's business."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tools.demo.world.scenes import compose, draw_look
from tools.demo.world.styles import STYLES, Style, draw_plain, draw_styled
from tools.demo.world.subjects import SUBJECTS
from tools.demo.world.triplets import Miniature
from uso.evaluation.sheet import GAP, TEXT


def style_sheet(size: int, seed: int, columns: int, styles: tuple[Style, ...] = STYLES) -> Image.Image:
    """Styles (rows, each with two sets of numbers) x subjects (columns, chosen by `seed`); the first row is plain."""
    random = np.random.default_rng(seed)
    chosen = [SUBJECTS[int(number)] for number in random.permutation(len(SUBJECTS))[:columns]]
    scenes = [compose(draw_look(subject, random), random) for subject in chosen]
    rows = [("plain", [draw_plain(scene, size) for scene in scenes])]
    for number, style in enumerate(styles):
        params = [style.draw(np.random.default_rng((seed, number, half))) for half in (0, 1)]
        pictures = [
            draw_styled(
                scene, style, params[2 * column // columns], size, np.random.default_rng((seed, number, column))
            )
            for column, scene in enumerate(scenes)
        ]
        rows.append((style.name + (" (held out)" if style.held_out else ""), pictures))
    return _sheet(
        [[(picture, name if column == 0 else "") for column, picture in enumerate(row)] for name, row in rows], size
    )


def triplet_sheet(data: Miniature, first: int, count: int) -> Image.Image:
    """Triplets in rows: content, style, perhaps a second style, target, and under them what they are."""
    rows = []
    for index in range(first, first + count):
        triplet = data.triplet(index)
        labels = triplet.labels
        row = [
            (triplet.content, f"{index}: layout {labels.layout}"),
            (triplet.style, f"{labels.style}, {labels.style_subject}"),
        ]
        if triplet.style_2 is not None:
            row.append((triplet.style_2, f"{labels.style_2}, {labels.style_subject_2}"))
        rows.append([*row, (triplet.target, triplet.prompt or f"(no prompt) {labels.subject}")])
    return _sheet(rows, data.size, words_wide=True)


def _sheet(rows: list[list[tuple[np.ndarray, str]]], size: int, words_wide: bool = False) -> Image.Image:
    columns = max(len(row) for row in rows)
    wide = 220 if words_wide else 0
    sheet = Image.new("RGB", (columns * (size + GAP) + wide, len(rows) * (size + GAP + TEXT)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for down, row in enumerate(rows):
        top = down * (size + GAP + TEXT)
        for across, (picture, words) in enumerate(row):
            left = across * (size + GAP)
            sheet.paste(Image.fromarray(picture), (left, top))
            draw.text((left + 2, top + size), words, fill="black", font=font)
    return sheet

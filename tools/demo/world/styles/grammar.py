"""Styles without a name: what the painters do, put together anew, with parameters that are drawn continuously.

A style is a tone, a palette, regions, marks, lines, a medium and a frame. Almost none comes twice, so a model cannot
know them by heart: it must read them from a picture. Nothing here is what only a held-out style does: studs, delft's
ornament, two overprinted plates. A region of the grammar, combinations of regions and marks, is held out too.
"""

from tools.demo.world.brush import Random, hsv
from tools.demo.world.styles.base import Params, Style, bright, pick
from tools.demo.world.styles.grammar_painter import paint_grammar

REGIONS = ("smooth", "flat", "blocks", "cells")
MARKS = ("none", "hatching", "dots", "streaks", "tooth")
HELD_OUT = {("cells", "streaks"), ("blocks", "hatching"), ("flat", "dots")}
"""Regions and marks that no training data hold together."""

GRAMMAR_NAME = "grammar"
"""What labels call all of these styles."""


def draw_grammar(random: Random, held_out: bool = False) -> Params:
    """Parameters of a style, of the held-out region or of the rest."""
    while True:
        regions = REGIONS[int(random.choice(4, p=[0.3, 0.26, 0.22, 0.22]))]
        marks = MARKS[int(random.choice(5, p=[0.2, 0.2, 0.2, 0.2, 0.2]))]
        if ((regions, marks) in HELD_OUT) == held_out:
            break
    colours = _palette(random)
    return {
        "colours": colours,
        **_tone(random),
        **_regions(random, regions, colours),
        **_marks(random, marks, colours),
        **_lines(random, colours),
        **_medium(random),
        **_frame(random, colours),
    }


def _number(random: Random, low: float, high: float) -> float:
    return round(float(random.uniform(low, high)), 4)


def _sometimes(random: Random, chance: float, low: float, high: float) -> float:
    """A number in a share of all cases, else 0."""
    value = _number(random, low, high)
    return value if random.random() < chance else 0.0


def _palette(random: Random) -> list[list[float]]:
    """Colours from dark to light: an ink and its paper, or several that go together."""
    count = int(random.integers(2, 7))
    hue, reach = random.uniform(0, 1), random.choice([0.0, 1.0], p=[0.35, 0.65]) * random.uniform(0.04, 0.55)
    strong, pale = random.uniform(0, 1) ** 0.7, random.uniform(0, 0.55)
    dark, light = random.uniform(0.04, 0.3), random.uniform(0.72, 0.98)
    found = []
    for number in range(count):
        share = number / (count - 1)
        weight = strong + (pale - strong) * share
        found.append(bright(hsv((hue + reach * share) % 1, weight, 1.0), dark + (light - dark) * share))
    return found


def _ink(random: Random, colours: list[list[float]]) -> list[float]:
    """A colour for lines, marks or frames: mostly of the palette, else any."""
    draw = random.random()
    if draw < 0.45:
        return colours[0]
    if draw < 0.65:
        return colours[-1]
    any_hue = hsv(float(random.uniform(0, 1)), float(random.uniform(0, 0.9)), 1.0)
    return bright(any_hue, float(random.uniform(0.03, 0.95)))


def _tone(random: Random) -> Params:
    own = float(random.choice([0.0, 0.5, 1.0], p=[0.42, 0.22, 0.36]))
    return {
        "own": own if own != 0.5 else _number(random, 0.15, 0.85),
        "ground": _number(random, 0.3, 1.0),
        "negative": bool(random.random() < 0.18),
        "soft": _number(random, 0.0, 2.0),
        "bleed": _sometimes(random, 0.35, 0.5, 2.6),
        "saturation": _number(random, 0.4, 2.2),
        "contrast": _number(random, 0.8, 1.5),
        "tint": [round(part, 4) for part in hsv(float(random.uniform(0, 1)), 0.65, 1.0)],
        "tinting": _sometimes(random, 0.5, 0.05, 0.6),
        "faded": _sometimes(random, 0.45, 0.15, 0.8),
        "levels": int(random.integers(2, 9)) if random.random() < 0.5 else 0,
        "softness": _number(random, 0.05, 0.4),
    }


def _regions(random: Random, kind: str, colours: list[list[float]]) -> Params:
    return {
        "regions": kind,
        "size": _number(random, 1.0, 2.8),
        "count": int(random.integers(20, 45)),
        "spacing": _number(random, 3.6, 13.0),
        "jitter": _number(random, 0.3, 1.0),
        "square": bool(random.random() < 0.4),
        "scatter": _sometimes(random, 0.6, 0.02, 0.14),
        "seam": _number(random, 0.5, 2.0),
        "seam_colour": _ink(random, colours),
        "seam_amount": _sometimes(random, 0.7, 0.25, 1.0),
        "bulge": _sometimes(random, 0.5, 0.1, 0.6),
        "lit": _sometimes(random, 0.5, 0.15, 0.6),
    }


def _marks(random: Random, kind: str, colours: list[list[float]]) -> Params:
    return {
        "marks": kind,
        "period": _number(random, 2.8, 7.5),
        "angle": _number(random, -1.5, 1.5),
        "layers": int(random.integers(1, 4)),
        "wobble": _number(random, 0.0, 2.5),
        "length": _number(random, 2.5, 9.0),
        "fineness": _number(random, 0.35, 1.1),
        "flowing": bool(random.random() < 0.6),
        "mark_colour": _ink(random, colours),
        "mark_amount": _number(random, 0.35, 1.0),
        "use": str(pick(random, ["shade", "cover", "texture"])),
        "within": _number(random, 0.0, 0.8),
    }


def _lines(random: Random, colours: list[list[float]]) -> Params:
    return {
        "lines": str(pick(random, ["contours", "contours", "strokes", "none"])),
        "width": _number(random, 0.9, 3.4),
        "inner": _number(random, 0.0, 1.0),
        "line_colour": _ink(random, colours),
        "line_amount": _number(random, 0.4, 1.0),
        "broken": _sometimes(random, 0.5, 0.1, 0.5),
    }


def _medium(random: Random) -> Params:
    return {
        "paper": bright(hsv(float(random.uniform(0, 1)), float(random.uniform(0, 0.4)), 1), _number(random, 0.6, 0.98)),
        "roughness": _number(random, 0.0, 0.05),
        "grain": _sometimes(random, 0.5, 0.01, 0.09),
        "grain_size": _number(random, 0.3, 0.9),
        "mottle": _sometimes(random, 0.35, 0.08, 0.35),
        "weave": _sometimes(random, 0.15, 0.08, 0.4),
        "scan": _sometimes(random, 0.12, 0.15, 0.5),
        "scan_period": _number(random, 2.6, 5.0),
        "crackle": _sometimes(random, 0.2, 0.2, 0.8),
        "crackle_size": _number(random, 8.0, 16.0),
        "glow": _sometimes(random, 0.15, 0.1, 0.4),
        "fringe": _sometimes(random, 0.12, 0.8, 2.4),
        "vignette": _sometimes(random, 0.25, 0.15, 0.65),
    }


def _frame(random: Random, colours: list[list[float]]) -> Params:
    return {
        "frame": str(pick(random, ["none", "none", "margin", "margin", "ring"])),
        "margin": _number(random, 2.5, 8.0),
        "margin_colour": _ink(random, colours),
        "margin_wobble": _sometimes(random, 0.5, 0.4, 2.6),
        "ring": _number(random, 0.5, 1.4),
    }


GRAMMAR = Style(GRAMMAR_NAME, "", draw_grammar, paint_grammar)
NEW_GRAMMAR = Style(GRAMMAR_NAME, "", lambda random: draw_grammar(random, held_out=True), paint_grammar, held_out=True)

"""Styles of dry colour on paper or board: pencil, charcoal, crayon, chalk, pastel, marker."""

import numpy as np

from tools.demo.world.brush import (
    Array,
    Random,
    along,
    blur,
    edges,
    grain,
    grid,
    hsv,
    luma,
    median,
    mix,
    noise,
    rim,
    saturate,
    smooth,
    steps,
    stripes,
    stroke_lines,
    thrice,
    times,
    warp,
)
from tools.demo.world.scenes import Picture
from tools.demo.world.styles.base import Params, Style, bright, contours, paper, pick, tones


def hatching(tone: Array, random: Random, period: float, angle: float, layers: int, softness: float = 0.16) -> Array:
    """Pencil hatching, 1 is graphite: one direction more for each step of darkness."""
    side = tone.shape[1]
    wobble = noise(random, side, 4, 2) * 1.6
    total = np.zeros_like(tone)
    for layer in range(layers):
        limit = 0.85 - 0.62 * layer / max(1, layers - 1)
        wave = stripes(side, period, angle + layer * 0.9, wobble + layer)
        amount = smooth(limit + 0.06, limit - 0.2, tone)
        total = np.maximum(
            total, smooth(1 - 0.62 * amount.mean() - softness, 1.0, wave * (0.35 + 0.65 * amount)) * amount
        )
    return total


def draw_pencil(random: Random) -> Params:
    return {
        "period": float(random.uniform(2.6, 4.2)),
        "angle": float(random.uniform(-1.2, 1.2)),
        "lead": bright(hsv(float(random.uniform(0.55, 0.7)), 0.15, 1), float(random.uniform(0.16, 0.3))),
        "paper": bright(hsv(0.11, float(random.uniform(0.01, 0.08)), 1), 0.95),
    }


def paint_pencil(picture: Picture, params: Params, random: Random) -> Array:
    tone = tones(picture, 0.5)
    side = picture.side
    hatch = hatching(tone, random, params["period"], params["angle"], 3)
    shade = smooth(0.9, 0.0, tone) * 0.35
    lines = contours(picture, 1.1, 0.95)
    lead = np.clip(np.maximum(hatch * 0.8, lines * 0.95) + shade, 0, 1)
    lead = lead * (0.82 + 0.18 * grain(random, side, 0.45))
    return mix(paper(side, params["paper"], random), params["lead"], np.clip(lead, 0, 1) * 0.95)


def draw_charcoal(random: Random) -> Params:
    return {
        "paper": bright(
            hsv(float(random.uniform(0.06, 0.14)), float(random.uniform(0.1, 0.3)), 1), random.uniform(0.68, 0.85)
        ),
        "smudge": float(random.uniform(1.2, 2.4)),
        "grain": float(random.uniform(0.1, 0.2)),
    }


def paint_charcoal(picture: Picture, params: Params, random: Random) -> Array:
    tone = tones(picture, 0.7)
    side = picture.side
    dark = smooth(0.85, 0.05, blur(tone, params["smudge"]) + 0.15 * noise(random, side, 6, 2))
    tooth = grain(random, side, 0.55) * params["grain"]
    rubbed = np.clip(dark * (0.8 + tooth), 0, 1) * (0.55 + 0.45 * picture.mask)
    lines = blur(rim(picture.mask, 3.2), 0.5) + 0.7 * stroke_lines(tone, 1.6)
    rubbed = np.maximum(rubbed, np.clip(lines * (0.85 + tooth), 0, 1))
    sheet = mix(
        paper(side, params["paper"], random, 0.04), (1.0, 0.99, 0.96), smooth(0.82, 0.98, tone) * picture.mask * 0.7
    )
    return mix(sheet, (0.09, 0.085, 0.09), rubbed * 0.95)


def draw_crayon(random: Random) -> Params:
    return {
        "period": float(random.uniform(3.2, 5.0)),
        "angle": float(random.uniform(0.3, 1.3)) * pick(random, [-1, 1]),
        "saturation": float(random.uniform(1.4, 1.9)),
        "gaps": float(random.uniform(0.35, 0.6)),
    }


def paint_crayon(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    colours = np.clip(saturate(blur(picture.rgb, 1.2), params["saturation"]) * 1.08, 0, 1)
    wobble = noise(random, side, 5, 2) * 2.5
    wave = stripes(side, params["period"], params["angle"], wobble)
    tooth = grain(random, side, 0.5)
    wax = smooth(-0.2, 0.75, wave + 0.55 - params["gaps"] + 0.33 * tooth - 0.25 * (1 - picture.mask))
    rgb = mix(paper(side, (0.98, 0.97, 0.94), random), colours, wax * 0.95)
    line = smooth(0.2, 0.8, rim(picture.mask, 2.6) + 0.65 * edges(picture.rgb, 1.3) + 0.22 * tooth)
    return mix(rgb, colours * np.float32(0.35), line * 0.85)


def draw_chalk(random: Random) -> Params:
    board = pick(random, [(0.13, 0.27, 0.22), (0.13, 0.14, 0.15), (0.14, 0.19, 0.3), (0.25, 0.17, 0.16)])
    return {
        "board": list(board),
        "period": float(random.uniform(2.8, 4.4)),
        "angle": float(random.uniform(-1.3, 1.3)),
        "white": float(random.uniform(0.25, 0.6)),
    }


def paint_chalk(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    tooth = grain(random, side, 0.5)
    board = times(params["board"], 1 + 0.3 * noise(random, side, 3, 3))
    colours = mix(saturate(picture.rgb, 1.3) * 0.6 + 0.4, (1.0, 1.0, 0.97), params["white"])
    light = luma(picture.rgb)
    wave = stripes(side, params["period"], params["angle"], noise(random, side, 4) * 2)
    fill = smooth(0.25, 1.0, wave * (0.4 + light) + 0.25 * tooth) * (0.07 + 0.68 * picture.mask)
    line = smooth(0.25, 0.85, contours(picture, 2.0, 0.9) * (1 + 0.3 * tooth))
    dust = smooth(0.3, 1.0, noise(random, side, 2, 2)) * 0.1
    return mix(mix(board, (0.9, 0.92, 0.9), dust), colours, np.maximum(fill, line * 0.97))


def draw_pastel(random: Random) -> Params:
    sheet = hsv(float(random.uniform(0, 1)), float(random.uniform(0.15, 0.35)), float(random.uniform(0.5, 0.85)))
    return {
        "paper": list(sheet),
        "angle": float(random.uniform(0.4, 1.2)) * pick(random, [-1, 1]),
        "length": float(random.uniform(4, 7)),
        "soft": float(random.uniform(0.35, 0.55)),
    }


def paint_pastel(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    wobble = params["angle"] + noise(random, side, 3) * 0.35
    dx, dy = np.cos(wobble), np.sin(wobble)
    streaks = along(grain(random, side, 0.45), dx, dy, params["length"], 4)
    streaks = streaks / (streaks.std() + 1e-6)
    moved = warp(blur(picture.rgb, 0.9), streaks * dx * 1.2, streaks * dy * 1.2)
    colours = saturate(moved, 1.1) * (1 - params["soft"]) + params["soft"] * (0.35 + 0.65 * saturate(moved, 1.5))
    colours = np.clip(colours + 0.06 * thrice(streaks), 0, 1)
    tooth = grain(random, side, 0.4)
    cover = smooth(-1.1, 0.5, 0.75 * streaks + 0.5 * tooth + 0.15 + 0.9 * picture.mask)
    line = smooth(0.3, 0.9, rim(picture.mask, 2.4) * 0.9 + 0.2 * tooth) * 0.5
    return mix(mix(paper(side, params["paper"], random, 0.04), colours, cover * 0.92), colours * np.float32(0.5), line)


def draw_marker(random: Random) -> Params:
    return {
        "period": float(random.uniform(7, 11)),
        "angle": float(random.uniform(-0.6, 0.6)),
        "saturation": float(random.uniform(1.5, 2.1)),
        "line": float(random.uniform(1.0, 1.5)),
    }


def paint_marker(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    colours = saturate(median(picture.rgb, 2.2), params["saturation"])
    light = thrice(luma(colours))
    colours = np.clip(colours / np.maximum(light, 0.05) * steps(light, 5, 0.2) * 0.75 + 0.25, 0, 1)
    x, y = grid(side)
    angle = params["angle"]
    across = (y * np.cos(angle) - x * np.sin(angle) + noise(random, side, 3) * 0.8) / params["period"]
    share = across - np.floor(across)
    overlap = smooth(0.82, 0.9, share)
    tip = random.uniform(0.9, 1.06, 64).astype(np.float32)[np.floor(across).astype(np.int64) % 64]
    ink = np.clip(times(colours, tip * (1 - 0.22 * overlap)), 0, 1)
    gap = smooth(0.02, 0.0, share) * 0.7
    rgb = mix(paper(side, (0.99, 0.99, 0.98), random, 0.008), ink, (1 - gap) * (0.55 + 0.45 * picture.mask))
    return mix(rgb, (0.08, 0.08, 0.12), contours(picture, params["line"], 0.85) * 0.95)


DRAWINGS: tuple[Style, ...] = (
    Style("pencil", "a pencil drawing", draw_pencil, paint_pencil, oversample=2),
    Style("charcoal", "a charcoal drawing", draw_charcoal, paint_charcoal, held_out=True),
    Style("crayon", "a crayon drawing", draw_crayon, paint_crayon),
    Style("chalk", "a chalk drawing", draw_chalk, paint_chalk),
    Style("pastel", "a pastel drawing", draw_pastel, paint_pastel),
    Style("marker", "a marker drawing", draw_marker, paint_marker),
)

"""Styles made of lines: engraving, comic, blueprint, neon sign, contour map, scratch art."""

import numpy as np

from tools.demo.world.brush import (
    Array,
    Random,
    along,
    blur,
    edges,
    flat,
    flow,
    frame,
    grain,
    grid,
    hsv,
    luma,
    median,
    mix,
    noise,
    ramp,
    rim,
    saturate,
    smooth,
    steps,
    stripes,
    thrice,
    times,
    unit,
)
from tools.demo.world.scenes import Picture
from tools.demo.world.styles.base import Params, Style, bright, contours, harmony, paper, pick, tones


def draw_engraving(random: Random) -> Params:
    ink = pick(random, [(0.1, 0.24, 0.18), (0.24, 0.13, 0.08), (0.1, 0.12, 0.28), (0.3, 0.07, 0.12)])
    return {
        "ink": list(ink),
        "paper": bright(hsv(float(random.uniform(0.1, 0.2)), 0.12, 1), 0.93),
        "period": float(random.uniform(2.7, 3.5)),
        "angle": float(random.uniform(-0.5, 0.5)),
    }


def paint_engraving(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    tone = tones(picture, 0.42)
    bend = blur(tone, 3.0) * 5 + noise(random, side, 2) * 1.2
    ink = np.zeros((side, side), np.float32)
    for turn, limit in ((0.0, 1.02), (1.2, 0.42)):
        wave = stripes(side, params["period"], params["angle"] + turn, bend)
        width = np.clip((limit - tone) / limit, 0, 1) * 0.8
        ink = np.maximum(ink, smooth(1 - width - 0.14, 1 - width + 0.14, wave) * smooth(0.0, 0.1, width))
    ink = np.maximum(ink, contours(picture, 0.9, 0.9) * 0.95)
    return mix(paper(side, params["paper"], random, 0.015), params["ink"], ink)


def draw_comic(random: Random) -> Params:
    return {
        "period": float(random.uniform(3.4, 5.0)),
        "saturation": float(random.uniform(1.8, 2.5)),
        "line": float(random.uniform(2.0, 2.9)),
        "page": list(pick(random, [(1.0, 0.96, 0.72), (0.85, 0.95, 1.0), (1.0, 0.88, 0.85), (1.0, 1.0, 1.0)])),
    }


def paint_comic(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    colours = saturate(median(picture.rgb, 1.6), params["saturation"])
    colours = steps(np.clip((colours - 0.5) * 1.35 + 0.55, 0, 1), 4, 0.12)
    period = params["period"]
    dots = stripes(side, period, np.pi / 4) * stripes(side, period, -np.pi / 4)
    tone = luma(picture.rgb)
    spots = smooth(0.36, 0.52, dots) * smooth(0.85, 0.55, tone) * (1 - 0.75 * picture.mask)
    rgb = mix(colours, params["page"], (1 - picture.mask) * 0.45)
    rgb = mix(rgb, colours * np.float32(0.55), spots * 0.9)
    line = np.maximum(
        rim(picture.mask, params["line"]), smooth(0.35, 0.75, edges(picture.rgb, 0.9)) * (0.5 + 0.5 * picture.mask)
    )
    line = np.maximum(line, smooth(0.3, 0.16, luma(blur(picture.rgb, 0.8))) * picture.mask)
    rgb = mix(rgb, (0.04, 0.03, 0.06), line)
    return mix(np.ones_like(rgb), mix(flat((0.03, 0.03, 0.05), side), rgb, frame(side, 5)), frame(side, 3))


def draw_blueprint(random: Random) -> Params:
    return {
        "sheet": list(
            hsv(float(random.uniform(0.58, 0.63)), float(random.uniform(0.7, 0.85)), float(random.uniform(0.42, 0.62)))
        ),
        "cell": float(pick(random, [8, 10.67, 16])),
        "hatch": float(random.uniform(3.2, 5.0)),
    }


def paint_blueprint(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    x, y = grid(side)
    sheet = times(params["sheet"], 1 + 0.1 * noise(random, side, 3, 3))
    cell = params["cell"]
    near = np.minimum(np.abs(x % cell - cell / 2), np.abs(y % cell - cell / 2))
    rgb = mix(sheet, (0.75, 0.88, 1.0), smooth(0.75, 0.35, near) * 0.3)
    wave = stripes(side, params["hatch"], np.pi / 4)
    dark = smooth(0.45, 0.15, tones(picture)) * picture.mask
    ink = np.maximum(contours(picture, 1.2, 1.0), smooth(0.6, 0.95, wave) * dark * 0.65)
    border = smooth(0.9, 0.4, np.abs(np.minimum(np.minimum(x, 128 - x), np.minimum(y, 128 - y)) - 4))
    return mix(rgb, (0.93, 0.97, 1.0), np.maximum(ink, border * 0.8) * 0.95)


def draw_neon(random: Random) -> Params:
    first = float(random.uniform(0, 1))
    return {
        "tubes": [list(hsv((first + turn) % 1, 0.85, 1.0)) for turn in (0, float(random.uniform(0.25, 0.5)))],
        "wall": list(hsv(float(random.uniform(0.6, 0.95)), 0.6, float(random.uniform(0.07, 0.14)))),
        "width": float(random.uniform(1.3, 1.9)),
        "glow": float(random.uniform(3.5, 6.0)),
    }


def paint_neon(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    first, second = (np.asarray(tube, np.float32) for tube in params["tubes"])
    outer, inner = rim(picture.mask, params["width"]), edges(picture.rgb, 0.9, 0.07, 0.2)
    behind = inner * (1 - blur(picture.mask, 1.0)) * 0.55
    warm = smooth(-0.05, 0.1, picture.rgb[..., 0] - picture.rgb[..., 2])
    within = inner * picture.mask * (1 - outer)
    tube = times(first, outer) + thrice(within) * mix(flat(second, side), first, warm * 0.5)
    tube = tube + times(second, behind)
    x, y = grid(side)
    rows = np.floor(y / 8)
    brick = np.minimum(np.abs(y % 8), np.abs((x + 8 * (rows % 2)) % 16))
    wall = times(params["wall"], 0.7 + 0.5 * smooth(0.2, 1.2, brick))
    glow = blur(tube, params["glow"]) * 1.5 + blur(tube, 1.6) * 0.6
    core = smooth(0.5, 1.0, outer) * 0.75
    return mix(1 - (1 - wall) * (1 - np.clip(glow, 0, 1)) * (1 - np.clip(tube, 0, 1)), (1, 1, 1), core)


def draw_contours(random: Random) -> Params:
    return {
        "levels": int(random.integers(7, 11)),
        "colours": harmony(random, 5, 0.3, 0.93, 0.5),
        "ink": bright(hsv(float(random.uniform(0, 1)), 0.5, 1), 0.2),
    }


def paint_contours(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    height = blur(tones(picture, 0.75) * 0.8 + 0.1, 1.7) + 0.05 * noise(random, side, 3, 2)
    scaled = height * params["levels"]
    distance = np.abs(scaled - np.round(scaled))
    rgb = ramp(np.floor(scaled + 0.5) / params["levels"], params["colours"])
    x, y = np.gradient(scaled)
    line = smooth(0.9, 0.25, distance / (np.hypot(x, y) * unit(scaled) + 0.03))
    rgb = mix(rgb, params["ink"], line * 0.75)
    return mix(rgb, params["ink"], rim(blur(picture.mask, 0.8), 1.6) * 0.9)


def draw_scratch(random: Random) -> Params:
    first = float(random.uniform(0, 1))
    span = float(random.uniform(0.35, 0.9))
    return {
        "foil": [list(hsv((first + span * k / 4) % 1, 0.6, 1.0)) for k in range(5)],
        "angle": float(random.uniform(-0.8, 0.8)),
        "length": float(random.uniform(3.0, 5.0)),
    }


def paint_scratch(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    tone = tones(picture, 0.8)
    light = mix(tone * 0.3, 0.12 + tone, picture.mask)
    dx, dy = flow(tone, 3.0)
    lines = along(grain(random, side, 0.55), dx, dy, params["length"])
    lines = lines / (lines.std() + 1e-6)
    amount = smooth(0.0, 0.85, light)
    scratched = smooth(0.0, 0.7, 0.8 * lines + 3.2 * amount - 1.9)
    scratched = np.maximum(scratched, rim(picture.mask, 1.5))
    x, y = grid(side)
    along_foil = (x * np.cos(params["angle"]) + y * np.sin(params["angle"])) / 128
    foil = ramp(np.clip(along_foil * 0.8 + 0.15, 0, 1), params["foil"])
    return mix(flat((0.05, 0.05, 0.06), side), foil, scratched)


LINES: tuple[Style, ...] = (
    Style("engraving", "an engraving", draw_engraving, paint_engraving, oversample=2),
    Style("comic", "a comic", draw_comic, paint_comic),
    Style("blueprint", "a blueprint", draw_blueprint, paint_blueprint),
    Style("neon", "a neon sign", draw_neon, paint_neon),
    Style("contour map", "a contour map", draw_contours, paint_contours),
    Style("scratch art", "a scratch picture", draw_scratch, paint_scratch),
)

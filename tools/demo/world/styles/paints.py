"""Styles of brush and colour: watercolour, oil, gouache, pointillism, ink wash, delftware, Japanese print."""

import cv2
import numpy as np
from numpy.typing import NDArray

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
    nearest,
    noise,
    ramp,
    relief,
    rim,
    saturate,
    smooth,
    steps,
    stroke_lines,
    thrice,
    times,
    warp,
)
from tools.demo.world.scenes import Picture
from tools.demo.world.styles.base import (
    Labels,
    Params,
    Style,
    bright,
    cells,
    contours,
    graded,
    harmony,
    paper,
    pick,
    seams,
    tones,
)


def draw_watercolour(random: Random) -> Params:
    return {
        "saturation": float(random.uniform(1.0, 1.45)),
        "strength": float(random.uniform(0.7, 0.95)),
        "bleed": float(random.uniform(0.8, 1.7)),
        "tint": list(hsv(float(random.uniform(0, 1)), 0.6, 1.0)),
        "tinting": float(random.uniform(0, 0.35)),
        "margin": float(random.uniform(4, 7)),
    }


def paint_watercolour(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    bleed = params["bleed"]
    dx, dy = noise(random, side, 14, 2) * bleed, noise(random, side, 14, 2) * bleed
    rgb = warp(median(graded(picture, params), 1.2), dx, dy)
    density = -np.log(np.clip(rgb, 0.04, 1)) * thrice(params["strength"] * (0.65 + 0.35 * warp(picture.mask, dx, dy)))
    wet = blur(density, 0.5)
    rim_of_wash = smooth(0.04, 0.3, np.abs(wet - blur(wet, 2.4)).max(2))
    pool = 0.78 + 0.35 * noise(random, side, 6, 3) + 0.45 * rim_of_wash + 0.08 * grain(random, side, 0.5)
    edge = noise(random, side, 7, 3) * 2.5
    density = times(wet, pool * frame(side, params["margin"], edge))
    return paper(side, (0.985, 0.975, 0.95), random, 0.02) * np.exp(-np.clip(density, 0, 4))


def draw_oil(random: Random) -> Params:
    return {
        "saturation": float(random.uniform(1.15, 1.6)),
        "contrast": float(random.uniform(1.0, 1.2)),
        "tint": list(hsv(float(random.uniform(0.02, 0.7)), 0.55, 1.0)),
        "tinting": float(random.uniform(0.05, 0.45)),
        "brush": float(random.uniform(1.7, 2.5)),
        "relief": float(random.uniform(0.35, 0.65)),
    }


def shaken(count: int, jitter: float, random: Random) -> NDArray[np.float64]:
    """(row, column) of the cells of a `count` x `count` grid, each moved within its cell, in random order."""
    places = np.moveaxis(np.indices((count, count)), 0, -1).reshape(-1, 2) + 0.5
    return (places + random.uniform(-jitter / 2, jitter / 2, places.shape))[random.permutation(count * count)]


def strokes(side: int, brush: float, dx: Array, dy: Array, wanted: Array, random: Random) -> tuple[Labels, Array]:
    """Brush strokes from broad to fine: number of the uppermost stroke per pixel, and where each began, [N, 2].

    `wanted` [H, W] in [0, 1] says where fine strokes are laid; `brush` is the finest width in pixels of 128.
    """
    canvas = np.zeros((side, side), np.float32)
    scale = side / 128
    starts = []
    number = 0
    for factor, limit in ((3.0, -1.0), (1.7, 0.15), (1.0, 0.45)):
        spacing = brush * factor * 0.9
        count = round(128 / spacing)
        places = (
            np.moveaxis(np.indices((count, count)), 0, -1).reshape(-1, 2) + random.uniform(0, 1, (count * count, 2))
        ) / count
        places = places[random.permutation(len(places))]
        rows, columns = np.clip((places * side).astype(np.int64), 0, side - 1).T
        keep = wanted[rows, columns] > limit
        rows, columns = rows[keep], columns[keep]
        reach = brush * factor * scale * random.uniform(0.7, 1.5, len(rows))
        across, down = dx[rows, columns] * reach, dy[rows, columns] * reach
        ends = np.stack([columns - across, rows - down, columns + across, rows + down], 1).round().astype(int).tolist()
        width = max(1, round(brush * factor * scale))
        for left, top, right, bottom in ends:
            cv2.line(canvas, (left, top), (right, bottom), number, width)
            number += 1
        starts.append(np.stack([rows, columns], 1))
    return canvas.astype(np.int32), np.concatenate(starts)


def paint_oil(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    source = graded(picture, params)
    dx, dy = flow(luma(blur(source, 1.5)), 3.5)
    turn = noise(random, side, 3) * 0.7
    dx, dy = dx * np.cos(turn) - dy * np.sin(turn), dx * np.sin(turn) + dy * np.cos(turn)
    wanted = np.maximum(smooth(0.02, 0.3, blur(edges(picture.rgb, 1.0), 1.2)) * 0.6, picture.mask)
    labels, starts = strokes(side, params["brush"], dx, dy, wanted, random)
    colours = blur(source, 0.9)[starts[:, 0], starts[:, 1]]
    colours = np.clip(
        colours * random.normal(1, 0.07, (len(colours), 1)) + random.normal(0, 0.025, colours.shape), 0, 1
    )
    rgb = colours.astype(np.float32)[labels]
    bristles = along(grain(random, side, 0.4), dx, dy, 2.5, 3)
    height = random.uniform(0, 1, len(starts)).astype(np.float32)[labels]
    light = relief(blur(height, 0.45) * 1.2 + bristles * 0.35, 1.0)
    return np.clip(times(rgb, 1 + light * params["relief"]) + thrice(np.maximum(light, 0) * 0.08), 0, 1)


def draw_gouache(random: Random) -> Params:
    return {
        "colours": harmony(random, int(random.integers(5, 7)), 0.14, 0.95, 0.75),
        "border": float(random.uniform(4, 8)),
    }


def paint_gouache(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    colours = params["colours"]
    tone = luma(median(thrice(tones(picture, 0.8)), 1.8))
    spread = mix((0.42 + 0.58 * tone), tone, picture.mask)
    level = steps(spread, len(colours), 0.06)
    dry = 1 + 0.02 * along(grain(random, side, 0.5), np.ones_like(tone), np.zeros_like(tone), 4, 3)
    rgb = ramp(level, colours) * thrice(dry)
    rgb = mix(rgb, colours[0], rim(picture.mask, 1.2) * 0.75)
    return mix(flat(colours[-1], side), rgb, frame(side, params["border"]))


def draw_pointillism(random: Random) -> Params:
    return {
        "dot": float(random.uniform(1.3, 1.8)),
        "saturation": float(random.uniform(1.4, 2.0)),
        "scatter": float(random.uniform(0.07, 0.13)),
        "tint": list(hsv(float(random.uniform(0, 1)), 0.6, 1.0)),
        "tinting": float(random.uniform(0, 0.3)),
        "canvas": bright(hsv(float(random.uniform(0.08, 0.16)), 0.2, 1), 0.92),
    }


def paint_pointillism(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    scale = side / 128
    source = graded(picture, params)
    canvas = (paper(side, params["canvas"], random) * 255).astype(np.uint8)
    for factor in (1.25, 0.9):
        count = round(128 / (params["dot"] * factor * 1.9))
        places = np.moveaxis(np.indices((count, count)), 0, -1).reshape(-1, 2) + random.uniform(
            0.05, 0.95, (count * count, 2)
        )
        places = (places / count * side)[random.permutation(count * count)]
        rows, columns = np.clip(places.astype(np.int64), 0, side - 1).T
        colours = source[rows, columns]
        colours = colours + random.normal(0, params["scatter"], colours.shape)
        inks = (np.clip(colours, 0, 1) * 255).astype(int).tolist()
        radius = round(params["dot"] * factor * scale * 16)
        for (row, column), ink in zip((places * 16).astype(int).tolist(), inks, strict=True):
            cv2.circle(canvas, (column, row), radius, ink, -1, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) / 255


def draw_ink(random: Random) -> Params:
    return {
        "paper": bright(
            hsv(float(random.uniform(0.09, 0.15)), float(random.uniform(0.08, 0.25)), 1),
            float(random.uniform(0.88, 0.95)),
        ),
        "wash": float(random.uniform(0.45, 0.7)),
        "line": float(random.uniform(2.2, 3.4)),
        "seal": [float(pick(random, [0.08, 0.84])), float(pick(random, [0.07, 0.83]))],
    }


def paint_ink(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    tone = tones(picture, 0.4)
    bleed = noise(random, side, 10, 3)
    wash = steps(smooth(0.95, 0.05, blur(warp(tone, bleed * 2.5, bleed * -2.5), 1.4)), 4, 0.35) * params["wash"]
    wash = wash * (0.85 + 0.3 * noise(random, side, 5, 3))
    pressure = smooth(-0.7, 0.5, noise(random, side, 4, 2))
    line = rim(picture.mask, params["line"]) * (0.45 + 0.55 * pressure)
    brush = np.maximum(smooth(0.25, 0.6, line), stroke_lines(tone, 1.1, 14) * (0.3 + 0.7 * picture.mask))
    dark = np.clip(np.maximum(wash, brush * 0.95), 0, 1)
    sheet = mix(paper(side, params["paper"], random, 0.025), (0.08, 0.08, 0.1), dark)
    x, y = grid(side)
    left, top = params["seal"][0] * 128, params["seal"][1] * 128
    box = np.maximum(np.abs(x - left - 5), np.abs(y - top - 5))
    marks = smooth(0.2, 0.6, np.sin((x - left) * 1.6) * np.sin((y - top) * 1.3))
    return mix(sheet, (0.78, 0.12, 0.1), smooth(5.4, 4.8, box) * (1 - 0.8 * marks))


def draw_delft(random: Random) -> Params:
    hue = float(random.uniform(0.6, 0.65))
    return {
        "colours": [bright(hsv(hue, 0.85, 1), 0.14), bright(hsv(hue, 0.6, 1), 0.45), bright(hsv(hue, 0.12, 1), 0.93)],
        "crackle": float(random.uniform(9, 14)),
        "ring": float(random.uniform(4, 6)),
    }


def paint_delft(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    tone = tones(picture, 0.5)
    brush = noise(random, side, 16, 2) * 0.12 * (1 - tone)
    rgb = ramp(steps(blur(tone, 0.7) + brush, 5, 0.35), params["colours"])
    rgb = mix(rgb, params["colours"][0], contours(picture, 1.6, 0.8) * 0.9)
    x, y = grid(side)
    inside = np.minimum(np.minimum(x, 128 - x), np.minimum(y, 128 - y))
    ring = params["ring"]
    lines = np.maximum(smooth(1.0, 0.5, np.abs(inside - ring)), smooth(0.8, 0.4, np.abs(inside - ring - 2.6)))
    corner = np.hypot(64 - np.abs(x - 64) - ring, 64 - np.abs(y - 64) - ring)
    rgb = mix(rgb, params["colours"][-1], smooth(ring + 1, ring, inside) + smooth(13, 12, corner))
    petals = smooth(0.2, 0.7, np.cos(corner * 0.9)) * smooth(12.5, 12, corner)
    rgb = mix(rgb, params["colours"][0], np.maximum(lines, petals * 0.8) * 0.9)
    crackle = seams(cells(side, params["crackle"], random, 0.95), 0.5)
    glaze = mix(rgb, (0.5, 0.53, 0.58), crackle * 0.22)
    shine = smooth(0.35, 0.9, noise(random, side, 2)) * 0.12
    return mix(glaze, (1, 1, 1), shine)


def draw_ukiyo(random: Random) -> Params:
    inks = [(0.12, 0.2, 0.36), (0.78, 0.34, 0.24), (0.42, 0.52, 0.42), (0.85, 0.68, 0.42), (0.93, 0.87, 0.74)]
    inks += [(0.35, 0.48, 0.62), (0.58, 0.4, 0.34), (0.88, 0.62, 0.55)]
    aged = random.uniform(-0.05, 0.05, (len(inks), 3))
    return {
        "inks": np.clip(np.array(inks) + aged, 0, 1).round(3).tolist(),
        "band": list(pick(random, [(0.12, 0.22, 0.42), (0.72, 0.28, 0.22), (0.2, 0.33, 0.3)])),
        "margin": float(random.uniform(5, 8)),
        "grain": float(random.uniform(0.05, 0.09)),
    }


def paint_ukiyo(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    inks = np.asarray(params["inks"], np.float32)
    source = saturate(median(picture.rgb, 2.4), 1.25)
    rgb = blur(inks[nearest(source, inks)], 0.35)
    _, y = grid(side)
    rgb = mix(rgb, params["band"], smooth(42, 6, y) * (1 - picture.mask) * 0.85)
    line = np.maximum(rim(picture.mask, 1.8), edges(picture.rgb, 0.9, 0.08, 0.2) * (0.35 + 0.65 * picture.mask))
    wood = along(grain(random, side, 0.5), np.ones((side, side), np.float32), noise(random, side, 2) * 0.2, 9, 4)
    rgb = rgb * thrice(1 + params["grain"] * wood / (wood.std() + 1e-6))
    rgb = mix(rgb, (0.1, 0.1, 0.14), line * 0.9)
    return mix(paper(side, (0.93, 0.88, 0.76), random), rgb, frame(side, params["margin"]))


PAINTS: tuple[Style, ...] = (
    Style("watercolour", "a watercolour", draw_watercolour, paint_watercolour),
    Style("oil", "an oil painting", draw_oil, paint_oil, oversample=2),
    Style("gouache", "a gouache", draw_gouache, paint_gouache),
    Style("pointillism", "a pointillist painting", draw_pointillism, paint_pointillism),
    Style("ink wash", "an ink wash painting", draw_ink, paint_ink),
    Style("delftware", "a delftware tile", draw_delft, paint_delft, held_out=True),
    Style("ukiyo-e", "a Japanese woodblock print", draw_ukiyo, paint_ukiyo),
)

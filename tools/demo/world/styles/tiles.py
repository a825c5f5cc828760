"""Styles put together from pieces: pixels, mosaic, stained glass, triangles, cut paper, toy bricks."""

import cv2
import numpy as np

from tools.demo.world.brush import (
    Array,
    Random,
    blur,
    edges,
    finished,
    flat,
    grain,
    grid,
    hsv,
    luma,
    median,
    mix,
    nearest,
    noise,
    relief,
    rim,
    saturate,
    shift,
    smooth,
    thrice,
    unit,
)
from tools.demo.world.scenes import Picture
from tools.demo.world.styles.base import (
    Params,
    Style,
    blocks,
    bright,
    cells,
    enlarged,
    graded,
    harmony,
    paper,
    per_label,
    pick,
    seams,
    tones,
)

_BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]], np.float32) / 16 - 0.47


def draw_pixels(random: Random) -> Params:
    return {
        "count": int(pick(random, [32, 36, 40])),
        "levels": int(random.integers(4, 7)),
        "saturation": float(random.uniform(1.2, 1.8)),
        "tint": list(hsv(float(random.uniform(0, 1)), 0.7, 1.0)),
        "tinting": float(random.uniform(0, 0.5)),
        "dither": float(random.uniform(0.3, 0.8)),
    }


def paint_pixels(picture: Picture, params: Params, random: Random) -> Array:
    count, levels = params["count"], params["levels"]
    small = blocks(graded(picture, params), count)
    cover = blocks(picture.mask, count)
    pattern = np.tile(_BAYER, (count // 4 + 1, count // 4 + 1))[:count, :count] * params["dither"] / (levels - 1)
    small = np.round(np.clip(small + thrice(pattern), 0, 1) * (levels - 1)) / (levels - 1)
    inside = (cover > 0.5).astype(np.float32)
    outline = cv2.dilate(inside, np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)) - inside
    return enlarged(mix(small.astype(np.float32), (0.1, 0.08, 0.14), outline), picture.side)


def draw_mosaic(random: Random) -> Params:
    return {
        "tile": float(random.uniform(3.8, 5.2)),
        "grout": list(bright(hsv(float(random.uniform(0, 1)), 0.15, 1), float(pick(random, [0.15, 0.25, 0.7])))),
        "contrast": float(random.uniform(1.15, 1.4)),
        "saturation": float(random.uniform(1.1, 1.6)),
        "scatter": float(random.uniform(0.04, 0.09)),
        "tint": list(hsv(float(random.uniform(0, 1)), 0.6, 1.0)),
        "tinting": float(random.uniform(0, 0.25)),
    }


def paint_mosaic(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    inside = (picture.mask > 0.5).astype(np.int32)
    labels = cells(side, params["tile"], random, 0.55, cv2.DIST_C) * 2 + inside
    labels = np.unique(labels, return_inverse=True)[1].reshape(side, side).astype(np.int32)
    colours = per_label(graded(picture, params), labels)
    colours = np.clip(colours * random.normal(1, params["scatter"], (len(colours), 1)), 0, 1).astype(np.float32)
    lines = seams(labels, 0.9)
    rgb = colours[labels] * thrice(1 + 0.22 * relief(-blur(lines, 0.5), 0.7))
    rgb = rgb * thrice(1 + 0.03 * grain(random, side, 0.5))
    return mix(rgb, params["grout"], lines * 0.9)


def draw_glass(random: Random) -> Params:
    return {
        "pane": float(random.uniform(11, 16)),
        "lead": float(random.uniform(1.5, 2.3)),
        "saturation": float(random.uniform(1.9, 2.6)),
        "tint": list(hsv(float(random.uniform(0, 1)), 0.8, 1.0)),
        "tinting": float(random.uniform(0, 0.4)),
    }


def paint_glass(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    source = saturate(median(picture.rgb, 2.0), 1.2)
    groups = nearest(source, [hsv(k / 6, 0.8, 0.9) for k in range(6)] + [(0.08, 0.08, 0.1), (0.95, 0.95, 0.95)])
    groups = cv2.medianBlur(groups.astype(np.uint8), 2 * max(1, round(1.6 * unit(picture.mask))) + 1).astype(np.int32)
    inside = (blur(picture.mask, 0.6) > 0.5).astype(np.int32)
    panes = cells(side, params["pane"], random, 0.8)
    labels = np.where(inside == 1, panes * 32 + 16 + groups, panes * 32).astype(np.int32)
    labels = np.unique(labels, return_inverse=True)[1].reshape(side, side).astype(np.int32)
    colours = per_label(graded(picture, params), labels)
    colours = np.clip(saturate(colours[None], 1.3)[0] * random.normal(1.12, 0.12, (len(colours), 1)), 0, 1)
    wobble = 1 + 0.12 * noise(random, side, 10, 2) + 0.1 * smooth(-0.2, 0.8, noise(random, side, 3))
    lines = seams(labels, params["lead"] * 0.6)
    border = np.maximum(seams(inside, params["lead"]), lines)
    rgb = colours.astype(np.float32)[labels] * thrice(wobble)
    rgb = rgb * thrice(1 - 0.35 * blur(border, 1.8)) + 0.1 * blur(rgb, 4)
    shine = np.maximum(relief(blur(border, 0.9), 0.9), 0)
    return mix(rgb, mix(flat((0.06, 0.06, 0.07), side), (0.5, 0.5, 0.52), shine * 0.6), np.clip(border * 1.2, 0, 1))


def draw_low_poly(random: Random) -> Params:
    return {
        "points": int(random.integers(380, 560)),
        "saturation": float(random.uniform(1.1, 1.6)),
        "tint": list(hsv(float(random.uniform(0, 1)), 0.6, 1.0)),
        "tinting": float(random.uniform(0, 0.45)),
        "facets": float(random.uniform(0.06, 0.14)),
    }


def paint_low_poly(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    source = graded(picture, params)
    weight = (
        0.04
        + 0.35 * blur(picture.mask, 1)
        + 1.6 * np.maximum(rim(picture.mask, 2), edges(picture.rgb, 1.2) * picture.mask)
    )
    chance = np.cumsum(weight.reshape(-1).astype(np.float64))
    chosen = np.searchsorted(chance, random.uniform(0, chance[-1], params["points"]))
    points = np.stack([chosen % side, chosen // side], 1).astype(np.float32) + random.uniform(
        0, 1, (params["points"], 2)
    )
    along_border = np.linspace(0, side - 1, 7)
    border = [(p, q) for p in along_border for q in (0.0, side - 1.0)] + [
        (q, p) for p in along_border for q in (0.0, side - 1.0)
    ]
    mesh = cv2.Subdiv2D((-1, -1, side + 2, side + 2))
    mesh.insert(np.concatenate([np.clip(points, 0, side - 1), border]).astype(np.float32))
    triangles = np.asarray(mesh.getTriangleList()).reshape(-1, 3, 2)
    triangles = triangles[((triangles > -2) & (triangles < side + 1)).all((1, 2))]
    middles = np.clip(triangles.mean(1).astype(np.int64), 0, side - 1)
    colours = blur(source, 0.7)[middles[:, 1], middles[:, 0]]
    lean = (triangles[:, 1, 0] - triangles[:, 0, 0]) * (triangles[:, 2, 1] - triangles[:, 0, 1]) / side
    light = 1 + params["facets"] * (random.normal(0, 0.8, (len(colours), 1)) + np.tanh(lean[:, None]))
    inks = (np.clip(colours * light, 0, 1) * 255).astype(int).tolist()
    canvas = finished(source)
    for corners, ink in zip(np.round(triangles * 16).astype(np.int32), inks, strict=True):
        cv2.fillConvexPoly(canvas, corners, ink, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) / 255


def draw_paper_cut(random: Random) -> Params:
    return {
        "ground": harmony(random, 4, 0.3, 0.95, 0.6),
        "figure": harmony(random, 4, 0.15, 0.93, 0.9),
        "depth": float(random.uniform(1.5, 2.6)),
    }


def paint_paper_cut(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    depth = params["depth"]
    light = luma(median(picture.rgb, 2.4))
    own = luma(median(thrice(tones(picture)), 1.2))
    rgb = paper(side, params["ground"][3], random, 0.015)
    layers = [
        (smooth(limit + 0.02, limit - 0.02, blur(light, 2.2)), params["ground"][number])
        for number, limit in ((2, 0.75), (1, 0.5), (0, 0.28))
    ]
    body = smooth(0.4, 0.6, blur(picture.mask, 0.7))
    layers.append((body, params["figure"][3]))
    layers += [
        (smooth(limit + 0.03, limit - 0.03, blur(own, 0.8)) * body, params["figure"][number])
        for number, limit in ((2, 0.75), (1, 0.5), (0, 0.24))
    ]
    for number, (shape, colour) in enumerate(layers):
        reach = depth * (1.3 if number == 3 else 0.8)
        shadow = shift(blur(shape, reach * 0.8), reach, reach) * (1 - shape)
        if number > 3:
            shadow = shadow * body
        rgb = rgb * thrice(1 - 0.5 * shadow)
        sheet = paper(side, colour, random, 0.012) if number in (2, 3) else np.asarray(colour, np.float32)
        rgb = mix(rgb, sheet, shape)
        rgb = rgb + thrice(0.1 * np.maximum(relief(shape, 0.6), 0))
    return np.clip(rgb, 0, 1)


def draw_bricks(random: Random) -> Params:
    return {
        "count": int(pick(random, [24, 28])),
        "levels": int(random.integers(4, 6)),
        "saturation": float(random.uniform(1.5, 2.1)),
        "light": float(random.uniform(0.2, 0.35)),
    }


def paint_bricks(picture: Picture, params: Params, random: Random) -> Array:
    side, count = picture.side, params["count"]
    small = blocks(graded(picture, params), count)
    small = np.round(small * (params["levels"] - 1)) / (params["levels"] - 1) * 0.92 + 0.04
    rgb = enlarged(small.astype(np.float32), side)
    x, y = grid(side)
    cell = 128 / count
    u, v = x % cell / cell - 0.5, y % cell / cell - 0.5
    distance = np.hypot(u, v)
    stud = smooth(0.36, 0.28, distance)
    seam = smooth(0.42, 0.5, np.maximum(np.abs(u), np.abs(v)))
    ring = smooth(0.1, 0.0, np.abs(distance - 0.32))
    shade = 1 + params["light"] * (ring * np.clip(-(u + v) * 3, -1, 1) * 2.2 + 0.35 * stud) - 0.4 * seam
    return np.clip(rgb * thrice(shade), 0, 1)


TILES: tuple[Style, ...] = (
    Style("pixel art", "pixel art", draw_pixels, paint_pixels),
    Style("mosaic", "a mosaic", draw_mosaic, paint_mosaic),
    Style("stained glass", "a stained glass window", draw_glass, paint_glass),
    Style("low poly", "a low poly rendering", draw_low_poly, paint_low_poly),
    Style("paper cut", "a paper cut", draw_paper_cut, paint_paper_cut),
    Style("toy bricks", "a picture of toy bricks", draw_bricks, paint_bricks, held_out=True, oversample=2),
)

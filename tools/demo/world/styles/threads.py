"""Styles of thread and wool: cross-stitch, knitting, embroidery."""

import cv2
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
    ramp,
    rim,
    saturate,
    shift,
    smooth,
    stripes,
    thrice,
)
from tools.demo.world.scenes import Picture
from tools.demo.world.styles.base import (
    Params,
    Style,
    blocks,
    bright,
    enlarged,
    graded,
    harmony,
    paper,
    pick,
    tones,
)


def fabric(random: Random, pale: float, deep: float, dark: float, light: float) -> list[float]:
    """A cloth of any hue: colourfulness from `pale` to `deep`, brightness from `dark` to `light`."""
    colour = hsv(float(random.uniform(0, 1)), float(random.uniform(pale, deep)), 1)
    return bright(colour, float(random.uniform(dark, light)))


def draw_cross_stitch(random: Random) -> Params:
    return {
        "count": int(pick(random, [28, 32, 36])),
        "levels": int(random.integers(4, 6)),
        "open": float(random.uniform(0.0, 0.3)),
        "cloth": bright(
            hsv(float(random.uniform(0, 1)), float(random.uniform(0.03, 0.2)), 1), float(random.uniform(0.82, 0.95))
        ),
        "saturation": float(random.uniform(1.1, 1.6)),
    }


def paint_cross_stitch(picture: Picture, params: Params, random: Random) -> Array:
    side, count = picture.side, params["count"]
    small = blocks(graded(picture, params), count)
    small = np.round(small * (params["levels"] - 1)) / (params["levels"] - 1)
    small = np.clip(small * random.normal(1, 0.04, (count, count, 1)), 0, 1).astype(np.float32)
    thread = enlarged(small, side)
    x, y = grid(side)
    cell = 128 / count
    u, v = x % cell / cell, y % cell / cell
    first, second = np.abs(u - v), np.abs(u + v - 1)
    fill = np.minimum(first, second)
    cover = smooth(0.34, 0.22, fill)
    over = smooth(0.3, 0.2, first)
    shade = (
        0.72
        + 0.4 * smooth(0.25, 0.0, np.where(over > 0.5, first, second))
        - 0.25 * smooth(0.2, 0.3, first) * smooth(0.42, 0.3, first)
    )
    holes = smooth(0.2, 0.1, np.hypot(np.minimum(u, 1 - u), np.minimum(v, 1 - v)))
    cloth = paper(side, params["cloth"], random) * thrice(1 - 0.55 * holes)
    light = blocks(luma(picture.rgb), count) + params["open"]
    stitched = (blocks(picture.mask, count) > 0.4) | (light < 0.62)
    return mix(cloth, thread * thrice(shade), cover * enlarged(stitched.astype(np.float32), side))


def draw_knit(random: Random) -> Params:
    return {
        "columns": int(random.integers(28, 34)),
        "saturation": float(random.uniform(0.9, 1.3)),
        "tint": list(hsv(float(random.uniform(0, 1)), 0.6, 1.0)),
        "tinting": float(random.uniform(0, 0.5)),
        "wools": harmony(random, 4, 0.12, 0.92, 0.85),
        "own": float(random.uniform(0.0, 0.5)),
    }


def paint_knit(picture: Picture, params: Params, random: Random) -> Array:
    side, columns = picture.side, params["columns"]
    rows = round(columns * 1.25)
    small = cv2.resize(graded(picture, params), (columns, rows), interpolation=cv2.INTER_AREA)
    inside = cv2.resize(picture.mask, (columns, rows), interpolation=cv2.INTER_AREA) > 0.5
    tone = cv2.resize(tones(picture, 0.8), (columns, rows), interpolation=cv2.INTER_AREA)
    light = cv2.resize(luma(picture.rgb), (columns, rows), interpolation=cv2.INTER_AREA)
    figure = np.where(tone < 0.3, 0.0, np.where(tone < 0.62, 0.72, 1.0)).astype(np.float32)
    ground = np.where(light < 0.55, 0.2, 0.42).astype(np.float32)
    wools = ramp(np.where(inside, figure, ground), params["wools"])
    small = mix(wools, np.round(small * 4) / 4, params["own"] * (0.4 + 0.6 * inside)) * 0.9 + 0.06
    x, y = grid(side)
    u = x * columns / 128
    share = u - np.floor(u)
    lean = 0.55 * np.abs(share - 0.5)
    v = y * rows / 128 + lean
    row, column = np.floor(v).astype(np.int64), np.floor(u).astype(np.int64)
    wool = small[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)]
    down = v - np.floor(v)
    half = np.abs(share - np.where(share < 0.5, 0.25, 0.75)) * 4
    bulge = np.sqrt(np.clip(1 - half**2 * 0.9, 0, 1)) * np.sqrt(np.clip(1 - (2 * down - 1) ** 2 * 0.85, 0, 1))
    plies = 0.07 * np.sin((down * 2 + np.where(share < 0.5, share, -share) * 3) * 2 * np.pi)
    fuzz = 0.06 * grain(random, side, 0.5)
    return np.clip(wool * thrice(0.42 + 0.68 * bulge + plies + fuzz), 0, 1).astype(np.float32)


def draw_embroidery(random: Random) -> Params:
    return {
        "cloth": bright(
            hsv(float(random.uniform(0, 1)), float(random.uniform(0.1, 0.5)), 1), float(random.uniform(0.3, 0.9))
        ),
        "stitch": float(random.uniform(1.9, 2.7)),
        "saturation": float(random.uniform(1.3, 1.8)),
        "ground": float(random.uniform(0.0, 0.35)),
    }


def paint_embroidery(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    x, y = grid(side)
    weave = 0.5 * stripes(side, 2.6, 0) + 0.5 * stripes(side, 2.6, np.pi / 2)
    cloth = paper(side, params["cloth"], random, 0.03) * thrice(0.84 + 0.22 * weave)
    colours = saturate(median(picture.rgb, 1.6), params["saturation"])
    tone = luma(blur(colours, 1.0))
    turn = np.floor(blur(tone, 1.5) * 4.99) * np.float32(0.75) + np.float32(0.4)
    dx, dy = np.cos(turn), np.sin(turn)
    threads = along(grain(random, side, 0.5), dx, dy, 5, 4)
    threads = threads / (threads.std() + 1e-6)
    across = (y * dx - x * dy) * np.float32(2 * np.pi / params["stitch"])
    shine = 0.5 + 0.5 * np.cos(across + threads * 0.5)
    along_thread = (x * dx + y * dy) / 9 + np.floor(across / (2 * np.pi)) * 0.37
    ends = smooth(0.08, 0.0, np.abs(along_thread - np.round(along_thread)))
    silk = colours * thrice(0.62 + 0.5 * shine - 0.2 * ends) + 0.1 * thrice(shine**3)
    body = smooth(0.4, 0.6, blur(picture.mask, 0.5))
    rgb = mix(cloth, silk, params["ground"] * smooth(0.3, 0.6, shine) * (1 - body))
    rgb = rgb * thrice(1 - 0.45 * shift(blur(body, 1.2), 1, 1.2) * (1 - body))
    rgb = mix(rgb, silk, body)
    inner = edges(picture.rgb, 1.2, 0.1, 0.2)
    behind = inner * (1 - blur(picture.mask, 2)) * smooth(0.3, 0.6, np.sin((x + y) * 0.8) * 0.5 + 0.5)
    rgb = mix(rgb, colours * np.float32(0.75), behind * 0.9)
    twist = 0.7 + 0.4 * stripes(side, 3.0, 0.9)
    return mix(rgb, colours * np.float32(0.38) * thrice(twist), rim(picture.mask, 2.2) * 0.95)


THREADS: tuple[Style, ...] = (
    Style("cross-stitch", "a cross-stitch", draw_cross_stitch, paint_cross_stitch, oversample=2),
    Style("knitting", "a knitted picture", draw_knit, paint_knit, oversample=2),
    Style("embroidery", "an embroidery", draw_embroidery, paint_embroidery),
)

"""How a style of the grammar is painted: tone and palette, regions, marks, lines, medium and frame."""

import cv2
import numpy as np

from tools.demo.world.brush import (
    BASE,
    Array,
    Random,
    along,
    blur,
    flat,
    flow,
    frame,
    grain,
    grid,
    luma,
    median,
    mix,
    noise,
    ramp,
    relief,
    rim,
    shift,
    smooth,
    steps,
    stripes,
    stroke_lines,
    thrice,
    times,
    warp,
)
from tools.demo.world.scenes import Picture
from tools.demo.world.styles.base import (
    Params,
    blocks,
    cells,
    contours,
    enlarged,
    graded,
    paper,
    per_label,
    seams,
    tones,
)


def paint_grammar(picture: Picture, params: Params, random: Random) -> Array:
    """Tone and palette, then regions, marks, lines, medium and frame, each on what is there."""
    side = picture.side
    tone = tones(picture, params["ground"])
    tone = 1 - tone if params["negative"] else tone
    own = graded(picture, params)
    tone, own, mask = _bled(tone, own, picture.mask, params, random)
    level = steps(tone, params["levels"], params["softness"]) if params["levels"] else tone
    if params["levels"]:
        light = luma(own)
        own = np.clip(
            own * thrice((steps(light, params["levels"] + 1, params["softness"]) + 0.05) / (light + 0.05)), 0, 1
        )
    rgb = mix(ramp(level, params["colours"]), own, params["own"])
    sheet = paper(side, params["paper"], random, params["roughness"])
    rgb = mix(rgb, sheet, (1 - mask) * np.float32(params["faded"]))
    rgb = _in_regions(rgb, mask, params, random)
    rgb = _marked(rgb, tone, mask, sheet, params, random)
    rgb = _outlined(rgb, picture, tone, params, random)
    return _framed(_on_medium(rgb, params, random), sheet, params, random)


def _bled(tone: Array, own: Array, mask: Array, params: Params, random: Random) -> tuple[Array, Array, Array]:
    """Tone, colours and mask, blurred, and moved as wet paint is."""
    side = tone.shape[1]
    if params["soft"] > 0.25:
        tone, own = blur(tone, params["soft"]), blur(own, params["soft"])
    if not params["bleed"]:
        return tone, own, mask
    dx, dy = (noise(random, side, 12, 2) * np.float32(params["bleed"]) for _ in range(2))
    return warp(tone, dx, dy), warp(own, dx, dy), warp(mask, dx, dy)


def _in_regions(rgb: Array, mask: Array, params: Params, random: Random) -> Array:
    side, kind = rgb.shape[1], params["regions"]
    if kind == "smooth":
        return rgb
    if kind == "flat":
        return median(rgb, params["size"])
    if kind == "blocks":
        return _in_blocks(rgb, params, random)
    inside = (mask > 0.5).astype(np.int32)
    metric = cv2.DIST_C if params["square"] else cv2.DIST_L2
    labels = cells(side, params["spacing"], random, params["jitter"], metric) * 2 + inside
    labels = np.unique(labels, return_inverse=True)[1].reshape(side, side).astype(np.int32)
    colours = per_label(rgb, labels)
    colours = np.clip(colours * random.normal(1, params["scatter"], (len(colours), 1)), 0, 1).astype(np.float32)
    lines = seams(labels, params["seam"])
    shaded = colours[labels] * thrice(1 + np.float32(params["lit"]) * relief(-blur(lines, 0.6), 0.8))
    return mix(shaded, params["seam_colour"], lines * np.float32(params["seam_amount"]))


def _in_blocks(rgb: Array, params: Params, random: Random) -> Array:
    """Squares of one colour, each perhaps with a seam, bulging, and lit from the upper left."""
    side, count = rgb.shape[1], params["count"]
    small = blocks(rgb, count)
    small = np.clip(small * random.normal(1, params["scatter"], (count, count, 1)), 0, 1).astype(np.float32)
    x, y = grid(side)
    cell = BASE / count
    u, v = x % cell / cell - 0.5, y % cell / cell - 0.5
    far = np.maximum(np.abs(u), np.abs(v))
    shade = 1 - np.float32(params["bulge"]) * smooth(0.15, 0.62, far)
    shade = shade * (1 - np.float32(params["lit"]) * np.clip((u + v) * 1.4, -1, 1))
    line = smooth(0.5 - 0.09 * params["seam"], 0.5, far)
    return mix(enlarged(small, side) * thrice(shade), params["seam_colour"], line * np.float32(params["seam_amount"]))


def _pattern(tone: Array, params: Params, random: Random) -> Array:
    """The marks by themselves, about 0 to 1: their whole shape, not how much of it is laid on."""
    side, kind = tone.shape[1], params["marks"]
    if kind == "hatching":
        bend = noise(random, side, 4, 2) * np.float32(params["wobble"])
        waves = [stripes(side, params["period"], params["angle"] + 0.9 * n, bend) for n in range(params["layers"])]
        return np.asarray(np.maximum.reduce(waves), np.float32)
    if kind == "dots":
        turned = [stripes(side, params["period"], params["angle"] + turn) for turn in (0.0, np.pi / 2)]
        return np.asarray((turned[0] + turned[1]) / 2, np.float32)
    fine = grain(random, side, params["fineness"])
    if kind == "tooth":
        return np.clip(0.5 + 0.35 * fine, 0, 1)
    if params["flowing"]:
        dx, dy = flow(blur(tone, 1.2), 3.5)
    else:
        turn = np.float32(params["angle"]) + noise(random, side, 3) * np.float32(0.3)
        dx, dy = np.cos(turn), np.sin(turn)
    lines = along(fine, dx, dy, params["length"], 4)
    return np.clip(0.5 + 0.35 * lines / (lines.std() + 1e-6), 0, 1)


def _marked(rgb: Array, tone: Array, mask: Array, sheet: Array, params: Params, random: Random) -> Array:
    """Marks in an ink where it is dark (`shade`), paper between the marks (`cover`), or a texture all over."""
    if params["marks"] == "none":
        return rgb
    pattern, amount = _pattern(tone, params, random), np.float32(params["mark_amount"])
    if params["use"] == "texture":
        return np.clip(rgb * thrice(1 + amount * np.float32(0.7) * (pattern - 0.5)), 0, 1)
    if params["use"] == "shade":
        dark = np.clip(1.05 - tone, 0, 1)
        ink = smooth(-0.14, 0.14, pattern - 1 + dark * 0.95) * smooth(0.0, 0.12, dark)
        return mix(rgb, params["mark_colour"], ink * amount)
    open_share = np.float32(0.55) - mask * np.float32(0.45 * params["within"])
    gaps = smooth(0.12, -0.12, pattern - open_share)
    return mix(rgb, sheet, gaps * amount)


def _outlined(rgb: Array, picture: Picture, tone: Array, params: Params, random: Random) -> Array:
    if params["lines"] == "none":
        return rgb
    if params["lines"] == "contours":
        line = contours(picture, params["width"], params["inner"])
    else:
        drawn = stroke_lines(tone, 0.5 + 0.35 * params["width"], 15) * (0.35 + 0.65 * picture.mask)
        line = np.maximum(drawn, rim(picture.mask, params["width"]) * np.float32(params["inner"]))
    if params["broken"]:
        line = np.clip(line * (1 + np.float32(params["broken"]) * grain(random, picture.side, 0.5)), 0, 1)
    return mix(rgb, params["line_colour"], line * np.float32(params["line_amount"]))


def _on_medium(rgb: Array, params: Params, random: Random) -> Array:
    """What press, cloth, glass or lens do to the whole picture."""
    side = rgb.shape[1]
    x, y = grid(side)
    if params["glow"]:
        rgb = rgb + np.float32(params["glow"]) * blur(rgb, 3.5) * rgb
    if params["fringe"]:
        red, green, blue = cv2.split(rgb)
        rgb = cv2.merge([shift(red, params["fringe"], 0), green, shift(blue, -params["fringe"], 0)])
    factor = np.ones((side, side), np.float32)
    if params["mottle"]:
        factor += np.float32(params["mottle"]) * noise(random, side, 5, 3)
    if params["weave"]:
        weave = 0.5 * stripes(side, 2.6, 0) + 0.5 * stripes(side, 2.6, np.pi / 2)
        factor *= 1 - np.float32(params["weave"]) * (1 - weave)
    if params["scan"]:
        factor *= 1 - np.float32(params["scan"]) * stripes(side, params["scan_period"], 0.0)
    if params["vignette"]:
        factor *= 1 - np.float32(params["vignette"]) * smooth(42, 92, np.hypot(x - 64, y - 64))
    rgb = times(rgb, factor)
    if params["crackle"]:
        veins = seams(cells(side, params["crackle_size"], random, 1.0), 0.6)
        rgb = mix(rgb, params["seam_colour"], veins * np.float32(params["crackle"]))
    if params["grain"]:
        rgb = rgb + thrice(np.float32(params["grain"]) * grain(random, side, params["grain_size"]))
    return np.clip(rgb, 0, 1)


def _framed(rgb: Array, sheet: Array, params: Params, random: Random) -> Array:
    side = rgb.shape[1]
    if params["frame"] == "none":
        return rgb
    margin = params["margin"]
    if params["frame"] == "ring":
        x, y = grid(side)
        inside = np.minimum(np.minimum(x, BASE - x), np.minimum(y, BASE - y))
        line = smooth(params["ring"] + 0.4, params["ring"] - 0.2, np.abs(inside - margin))
        return mix(rgb, params["margin_colour"], line)
    edge = noise(random, side, 7, 3) * np.float32(params["margin_wobble"])
    border = flat(params["margin_colour"], side) if params["ring"] < 0.9 else sheet
    return mix(border, rgb, frame(side, margin, edge))

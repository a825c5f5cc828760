"""Styles of presses and screens: woodcut, linocut, halftone, risograph, thermal image, batik, photo, television."""

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
    mix,
    noise,
    ramp,
    rim,
    saturate,
    shift,
    smooth,
    steps,
    stripes,
    thrice,
    times,
    warp,
)
from tools.demo.world.scenes import Picture
from tools.demo.world.styles.base import (
    Params,
    Style,
    bright,
    cells,
    graded,
    harmony,
    paper,
    pick,
    seams,
    tones,
)


def draw_woodcut(random: Random) -> Params:
    return {
        "ink": list(pick(random, [(0.07, 0.06, 0.06), (0.1, 0.08, 0.16), (0.16, 0.07, 0.05), (0.05, 0.11, 0.1)])),
        "paper": bright(hsv(float(random.uniform(0.08, 0.14)), float(random.uniform(0.12, 0.35)), 1), 0.9),
        "cut": float(random.uniform(0.85, 1.15)),
        "length": float(random.uniform(6, 9)),
    }


def paint_woodcut(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    tone = tones(picture, 0.55)
    dx, dy = flow(blur(tone, 1.2), 4.0)
    cuts = along(grain(random, side, params["cut"]), dx, dy, params["length"], 5)
    cuts = cuts / (cuts.std() + 1e-6)
    dark = blur(tone, 0.7) * 2.6 - 1.15
    ink = smooth(0.18, -0.18, dark + cuts * (0.85 - 0.4 * picture.mask))
    ink = np.maximum(ink, rim(picture.mask, 2.2))
    halo = smooth(0.02, 0.3, blur(picture.mask, 2.6)) * (1 - smooth(0.0, 0.6, blur(picture.mask, 0.7)))
    ink = ink * (1 - halo) * (0.93 + 0.1 * grain(random, side, 0.6))
    return mix(
        paper(side, params["paper"], random),
        params["ink"],
        np.clip(ink, 0, 1) * frame(side, 4, noise(random, side, 6) * 0.8),
    )


def draw_linocut(random: Random) -> Params:
    return {
        "inks": harmony(random, 4, 0.1, 0.95, 0.9),
        "offset": [float(random.uniform(-1.2, 1.2)), float(random.uniform(-1.2, 1.2))],
        "gouge": float(random.uniform(5.5, 8)),
        "angle": float(random.uniform(-1.4, 1.4)),
    }


def paint_linocut(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    tone = blur(tones(picture, 0.75), 1.3)
    inks = params["inks"]
    rgb = paper(side, inks[3], random)
    moves = [(0.0, 0.0), tuple(params["offset"]), tuple(-part for part in params["offset"])]
    mottle = grain(random, side, 0.5)
    gouges = stripes(side, params["gouge"], params["angle"], noise(random, side, 5, 2) * 2.4)
    broken = noise(random, side, 16)
    for number, limit in ((2, 0.86), (1, 0.56), (0, 0.28)):
        plate = smooth(limit + 0.03, limit - 0.03, tone + 0.02 * noise(random, side, 12))
        marks = smooth(0.9, 0.97, gouges) * smooth(-0.1, 0.15, broken) * (1 - picture.mask * 0.7)
        plate = shift(plate * (1 - 0.9 * marks), *moves[number])
        rgb = mix(rgb, inks[number], plate * np.clip(0.92 + 0.06 * mottle, 0, 1))
    return mix(
        mix(rgb, inks[0], rim(picture.mask, 2.0) * 0.95), inks[3], 1 - frame(side, 5, noise(random, side, 9) * 0.9)
    )


def screen(side: int, period: float, angle: float, density: Array) -> Array:
    """A screen of dots that grow with `density` [H, W] in [0, 1]; 1 is ink."""
    dots = (stripes(side, period, angle) + stripes(side, period, angle + np.pi / 2)) / 2
    limit = 1 - density
    return smooth(-0.09, 0.09, dots - limit * 1.04 + 0.02)


def draw_halftone(random: Random) -> Params:
    return {
        "period": float(random.uniform(3.6, 5.2)),
        "paper": bright(hsv(float(random.uniform(0.08, 0.16)), float(random.uniform(0.03, 0.2)), 1), 0.94),
        "turn": float(random.uniform(0, 0.5)),
        "saturation": float(random.uniform(1.2, 1.7)),
    }


def paint_halftone(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    rgb = np.clip((saturate(picture.rgb, params["saturation"]) - 0.5) * 1.15 + 0.54, 0, 1)
    black = 1 - rgb.max(2)
    parts = [1 - rgb[..., channel] - 0.75 * black for channel in range(3)] + [black * 1.1]
    inks = [(0.0, 0.62, 0.85), (0.88, 0.1, 0.5), (1.0, 0.88, 0.1), (0.1, 0.09, 0.1)]
    sheet = paper(side, params["paper"], random)
    for part, ink, angle in zip(parts, inks, (0.26, 1.31, 0.0, 0.785), strict=True):
        dots = screen(side, params["period"], angle + params["turn"], np.clip(part, 0, 1))
        sheet = sheet * mix((1, 1, 1), ink, dots)
    return sheet


def draw_risograph(random: Random) -> Params:
    first = float(random.uniform(0, 1))
    return {
        "first": list(hsv(first, 0.85, 0.95)),
        "second": list(hsv((first + float(random.uniform(0.3, 0.6))) % 1, 0.8, 0.6)),
        "offset": [float(random.uniform(0.7, 1.6)) * pick(random, [-1, 1]), float(random.uniform(-1.2, 1.2))],
        "grain": float(random.uniform(0.5, 0.8)),
    }


def paint_risograph(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    tone = tones(picture, 0.7)
    warm = smooth(-0.25, 0.45, picture.rgb[..., 0] - picture.rgb[..., 2])
    dark, colour = smooth(0.8, 0.1, tone), np.clip((1 - tone) * 0.5 + 0.55 * warm, 0, 1)
    sheet = paper(side, (0.96, 0.945, 0.91), random)
    for density, ink, move in ((colour, params["first"], (0.0, 0.0)), (dark, params["second"], params["offset"])):
        speck = grain(random, side, 0.35) * params["grain"] * 0.5
        plate = smooth(0.32, 0.68, shift(density, *move) + speck * (0.3 + density))
        sheet = sheet * mix((1, 1, 1), ink, 0.95 * plate)
    edge = shift(rim(picture.mask, 1.6), *params["offset"])
    return mix(sheet, sheet * np.asarray(params["second"], np.float32), edge * 0.9)


_HEAT = [
    [(0.02, 0.0, 0.12), (0.35, 0.0, 0.5), (0.85, 0.15, 0.35), (1.0, 0.6, 0.1), (1.0, 0.98, 0.75)],
    [(0.0, 0.0, 0.35), (0.0, 0.5, 0.9), (0.1, 0.85, 0.4), (0.98, 0.9, 0.1), (0.95, 0.1, 0.05)],
    [(0.05, 0.02, 0.2), (0.2, 0.25, 0.7), (0.1, 0.65, 0.65), (0.55, 0.85, 0.3), (1.0, 0.95, 0.3)],
]


def draw_thermal(random: Random) -> Params:
    return {"colours": [list(colour) for colour in pick(random, _HEAT)], "soft": float(random.uniform(1.2, 2.2))}


def paint_thermal(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    tone = tones(picture, 1.0)
    surroundings = luma(picture.rgb) * 0.4
    heat = mix(surroundings, (0.38 + 0.62 * tone), picture.mask)
    heat = blur(heat, params["soft"]) + 0.3 * (blur(heat, 0.6) - blur(heat, 1.6))
    heat = heat + 0.22 * blur(picture.mask, 7) * (1 - picture.mask)
    lines = stripes(side, 2.0, 0.0) * 0.025
    rgb = ramp(heat + lines + 0.012 * grain(random, side), params["colours"])
    x, y = grid(side)
    bar = smooth(3.2, 2.8, np.abs(x - 122)) * smooth(52, 51.5, np.abs(y - 64))
    return mix(rgb, ramp(np.clip((115 - y) / 102, 0, 1), params["colours"]), bar)


def draw_batik(random: Random) -> Params:
    colours = harmony(random, 4, 0.2, 0.9, 0.9)
    return {
        "colours": colours,
        "crackle": float(random.uniform(11, 16)),
        "dye": bright(hsv(float(random.uniform(0.55, 0.75)), 0.8, 1), 0.12),
        "wax": bright(hsv(float(random.uniform(0.1, 0.16)), 0.2, 1), 0.93),
    }


def paint_batik(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    dx, dy = noise(random, side, 8, 2) * 1.5, noise(random, side, 8, 2) * 1.5
    tone = warp(blur(tones(picture, 0.9), 1.6), dx, dy)
    around = mix(tone * 0.55, 0.2 + 0.8 * tone, picture.mask)
    rgb = ramp(steps(around, 4, 0.1), params["colours"])
    rgb = rgb * thrice(0.85 + 0.3 * smooth(-0.5, 0.6, noise(random, side, 9, 3)))
    wax = np.maximum(rim(picture.mask, 2.8), edges(picture.rgb, 1.6, 0.06, 0.16) * picture.mask * 0.9)
    x, y = grid(side)
    spots = np.hypot((x + 4 * (np.floor(y / 9) % 2)) % 9 - 4.5, y % 9 - 4.5)
    wax = np.maximum(wax, smooth(1.7, 1.1, spots) * (1 - smooth(0, 0.2, blur(picture.mask, 3))))
    rgb = mix(rgb, params["wax"], wax * 0.95)
    veins = seams(cells(side, params["crackle"], random, 1.0), 0.7)
    veins = warp(veins, noise(random, side, 12, 2) * 2, noise(random, side, 12, 2) * 2)
    return mix(rgb, params["dye"], smooth(0.2, 0.8, veins) * smooth(-0.6, 0.3, noise(random, side, 4)) * 0.75)


def draw_photograph(random: Random) -> Params:
    hue = float(random.uniform(0.07, 0.12))
    strength = float(random.uniform(0.35, 0.6))
    return {
        "colours": [bright(hsv(hue, strength * 1.3, 1), level) for level in (0.1, 0.45, 0.75, 0.9)],
        "vignette": float(random.uniform(0.3, 0.6)),
        "fade": float(random.uniform(0.0, 0.2)),
        "border": float(random.uniform(5, 8)),
    }


def paint_photograph(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    x, y = grid(side)
    light = luma(blur(picture.rgb, 0.6))
    light = np.clip((light - 0.5) * (1.25 - params["fade"]) + 0.5 + params["fade"] * 0.2, 0, 1)
    round_off = 1 - params["vignette"] * smooth(45, 92, np.hypot(x - 64, y - 64))
    stains = 0.09 * smooth(0.2, 0.8, noise(random, side, 3, 3))
    rgb = ramp(light * round_off + 0.035 * grain(random, side, 0.45) - stains, params["colours"])
    for _ in range(3):
        place, lean = random.uniform(8, 120), random.uniform(-0.05, 0.05)
        scratch = smooth(0.6, 0.2, np.abs(x - place - lean * y)) * smooth(-0.1, 0.2, noise(random, side, 8))
        rgb = mix(rgb, (0.96, 0.92, 0.83), scratch * 0.6)
    wave = 0.9 * np.maximum(np.cos(x * np.pi / 4), np.cos(y * np.pi / 4))
    sheet = paper(side, (0.94, 0.9, 0.82), random)
    return mix(flat((0.45, 0.38, 0.32), side), mix(sheet, rgb, frame(side, params["border"])), frame(side, 2.2, wave))


def draw_television(random: Random) -> Params:
    return {
        "shift": float(random.uniform(1.2, 2.4)) * pick(random, [-1, 1]),
        "line": float(pick(random, [3.2, 4.0])),
        "tint": list(hsv(float(random.uniform(0.3, 0.9)), 0.7, 1.0)),
        "tinting": float(random.uniform(0.15, 0.55)),
        "saturation": float(random.uniform(1.2, 1.7)),
    }


def paint_television(picture: Picture, params: Params, random: Random) -> Array:
    side = picture.side
    x, y = grid(side)
    radius = ((x - 64) ** 2 + (y - 64) ** 2) / 64**2
    dx, dy = (x - 64) * radius * 0.05, (y - 64) * radius * 0.05
    jump = np.where(noise(random, side, 7)[:, :1] > 0.45, np.float32(random.uniform(-3, 3)), np.float32(0))
    source = warp(graded(picture, params), dx + jump, dy)
    move = params["shift"]
    parts = [shift(source[..., 0], move, 0), source[..., 1], shift(source[..., 2], -move, 0)]
    rgb = blur(np.stack(parts, 2), 0.5)
    rgb = rgb + 0.35 * blur(rgb, 3) * rgb
    wave = stripes(side, params["line"], 0.0)
    rgb = times(rgb, 0.55 + 0.55 * wave) + thrice(0.025 * grain(random, side))
    corner = np.maximum(np.abs(x + dx - 64), np.abs(y + dy - 64)) + 0.1 * np.minimum(np.abs(x - 64), np.abs(y - 64))
    glass = smooth(68, 65, corner) * (1 - 0.35 * smooth(0.6, 2.0, radius))
    return np.clip(rgb * thrice(glass) + 0.02, 0, 1)


PRINTS: tuple[Style, ...] = (
    Style("woodcut", "a woodcut", draw_woodcut, paint_woodcut, oversample=2),
    Style("linocut", "a linocut", draw_linocut, paint_linocut),
    Style("halftone", "a halftone print", draw_halftone, paint_halftone, oversample=2),
    Style("risograph", "a risograph", draw_risograph, paint_risograph, held_out=True),
    Style("thermal image", "a thermal image", draw_thermal, paint_thermal),
    Style("batik", "a batik", draw_batik, paint_batik),
    Style("old photograph", "an old photograph", draw_photograph, paint_photograph),
    Style("television", "a television picture", draw_television, paint_television),
)

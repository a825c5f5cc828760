"""Draw the style pictures of `assets/examples/`: watercolour, woodcut, mosaic, poster and oil, from nothing but code.

Each is one function from a seed to a picture of `SIZE` x `SIZE` pixels, with numpy and Pillow only. No photograph and
no picture of anybody else goes in, so they carry this repository's own licence.

    python -m tools.draw_styles [FOLDER]
"""

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tools.examples.motifs import fish, night
from tools.examples.painting import SIZE, Array, at, blurred, colour, grid, noise, picture, slope, smooth
from uso.config import ROOT

FOLDER = ROOT / "assets" / "examples"
SEED = 7


def wash(paper: Array, mask: Array, pigment: Array, strength: Array, random: np.random.Generator) -> Array:
    """One layer of watercolour: transparent, grained, darker where the pigment dried at its edge."""
    edge = np.clip(mask - blurred(mask, 7), 0, 1) * 1.1 + np.clip(mask - blurred(mask, 2), 0, 1) * 0.5
    grain = 1 + 0.20 * noise(random, 120, 2) + 0.30 * noise(random, 5, 4)
    density = np.clip(mask * strength * grain + edge * strength, 0, 1.25)
    return paper * (1 - density[..., None] * (1 - pigment))


def watercolour(seed: int = SEED) -> Image.Image:
    """Misty mountains over a lake, wash upon wash."""
    random = np.random.default_rng(seed)
    x, y = grid()
    fibre = noise(random, 190, 2)
    image = colour("fbf6ea") * (1 + 0.022 * fibre[..., None])
    wobble = 0.02 * noise(random, 9, 5)
    border = smooth(0.035, 0.05, np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y)) + wobble)
    bloom = noise(random, 3, 5)
    sky = border * smooth(0.62, 0.30, y + 0.10 * bloom)
    image = wash(image, sky, colour("5b8fc4"), 0.25 + 0.45 * smooth(0.45, 0.05, y) * (1 + bloom), random)
    glow = border * np.exp(-(((x - 0.66) / 0.34) ** 2 + ((y - 0.40) / 0.16) ** 2))
    image = wash(image, glow, colour("f08a4b"), 0.75 + 0.2 * bloom, random)
    sun = smooth(0.074, 0.068, np.hypot(x - 0.66, y - 0.31) + 0.3 * wobble)
    image = wash(image, sun, colour("e2502f"), np.full_like(x, 0.75), random)
    ranges = [
        (0.44, 0.11, 3.0, "8a9fd0", 0.50),
        (0.52, 0.10, 4.0, "5b6fb0", 0.60),
        (0.59, 0.08, 5.0, "6a4a8c", 0.65),
        (0.655, 0.05, 7.0, "1f4e5a", 0.85),
    ]
    for base, height, cells, code, strength in ranges:
        ridge = base + height * noise(random, cells, 6)[SIZE // 2][None, :]
        mist = smooth(0.72, 0.50, y - (base - 0.46)) * (1 + 0.5 * noise(random, 4, 3))
        mask = border * smooth(-0.002, 0.003, y - ridge + 0.12 * wobble) * smooth(0.712, 0.700, y + 0.15 * wobble)
        image = wash(image, mask, colour(code), strength * np.clip(mist, 0.18, 1.1), random)
    lake = border * smooth(0.704, 0.712, y + 0.10 * wobble)
    streaks = noise(random, 4, 4)[np.clip((np.arange(SIZE) * 9) % SIZE, 0, SIZE - 1)]
    image = wash(image, lake, colour("3f86ad"), 0.35 + 0.45 * smooth(0.70, 1.0, y) + 0.10 * streaks, random)
    mirror = lake * np.exp(-(((x - 0.66 + 0.5 * wobble) / 0.05) ** 2)) * smooth(0.98, 0.74, y)
    image = wash(image, mirror, colour("ee7d45"), np.full_like(x, 0.8), random)
    for _ in range(26):
        cx, cy, r = random.uniform(0.05, 0.95), random.uniform(0.05, 0.95), random.uniform(0.001, 0.005)
        spot = smooth(r, r * 0.7, np.hypot(x - cx, y - cy) + 0.05 * wobble)
        image = wash(
            image, spot, colour(("5b6fb0", "e2502f", "3f86ad")[random.integers(3)]), np.full_like(x, 0.5), random
        )
    return picture(image)


def woodcut(seed: int = SEED) -> Image.Image:
    """A sun over hills and waves, cut in lines; drawn at twice the size."""
    random = np.random.default_rng(seed)
    size = 2 * SIZE
    x, y = grid(size)
    rough = noise(random, 60, 4, size)
    slow = noise(random, 3, 3, size)

    def lines(phase: Array, tone: Array) -> Array:
        """1 where ink stays: lines that swell with the tone, with the knife's wobble."""
        saw = np.abs((phase + 0.10 * rough) % 1 - 0.5) * 2
        return smooth(-0.10, 0.10, tone + 0.12 * rough - saw)

    cx, cy, radius = 0.5, 0.36, 0.155
    r, angle = np.hypot(x - cx, y - cy), np.arctan2(y - cy, x - cx)
    rays = angle / (2 * np.pi) * 72 + 0.15 * slow
    fan = np.abs((angle / (2 * np.pi) * 18) % 1 - 0.5) * 2
    ink = lines(rays, 0.20 + 0.85 * smooth(0.2, 0.72, r) + 0.25 * (smooth(0.4, 0.6, fan) - 0.5))
    disc = smooth(radius, radius - 0.004, r + 0.002 * rough)
    ring = smooth(0.008, 0.004, np.abs(r - radius - 0.014) + 0.002 * rough)
    shade = np.clip(0.05 + 1.6 * (y - cy + 0.02), 0, 0.55)
    ink = np.where(
        disc > 0.5, lines((y + 0.010 * np.sin(9 * x)) * 62, shade), np.maximum(ink * smooth(0.19, 0.20, r), ring)
    )
    for base, height, cells, density in ((0.56, 0.17, 3, 46.0), (0.64, 0.12, 4, -60.0)):
        ridge = base + height * noise(random, cells, 3, size)[size // 2][None, :] * 0.8
        depth = y - ridge
        hill = smooth(0.0, 0.002, depth)
        steep = np.gradient(np.broadcast_to(ridge, x.shape), axis=1) * size
        tone = 0.42 + 0.9 * np.clip(steep, -0.5, 0.5) + 0.5 * smooth(0.0, 0.16, depth)
        cut = lines((x * 0.8 + depth * 0.75) * density + 2 * slow, tone)
        cut = np.maximum(cut, smooth(0.006, 0.004, np.abs(depth) + 0.002 * rough))
        ink = ink * (1 - hill) + cut * hill
    for row in range(9):
        base = 0.70 + 0.030 * row + 0.0035 * row * row
        period, swell = 5.5 - 0.28 * row, 0.012 + 0.0035 * row
        s = x * period + 0.37 * row * (1 + 0.1 * np.sin(row))
        crest = base + swell * (np.abs(np.sin(np.pi * s)) ** 0.7 * -1 + 0.5)
        depth = y - crest
        wave = smooth(0.0, 0.002, depth)
        tone = 0.15 + 0.95 * smooth(0.0, 0.030 + 0.004 * row, depth)
        cut = lines((depth * (46 - 2 * row) + 0.10 * np.sin(6 * np.pi * s)) * 1.6, tone)
        cut = np.maximum(cut, smooth(0.006, 0.004, np.abs(depth) + 0.002 * rough))
        ink = ink * (1 - wave) + cut * wave
    frame = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y)) + 0.0025 * rough
    ink = np.where(frame < 0.045, smooth(0.028, 0.030, frame) * smooth(0.043, 0.041, frame), ink)
    ink *= 1 - 0.85 * smooth(0.86, 0.95, noise(random, 220, 2, size))
    warm = disc * smooth(0.3, 0.1, ink)
    paper = colour("f1e6cc") * (1 + 0.025 * noise(random, 150, 3, size)[..., None])
    paper = paper * (1 - warm[..., None]) + colour("c8442b") * warm[..., None]
    image = paper * (1 - ink[..., None]) + colour("1d1a1c") * ink[..., None]
    return picture(image).resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def nearest_stones(px: Array, py: Array, direction: Array, stones: int) -> tuple[NDArray[np.int_], Array]:
    """Per pixel: the nearest stone's number, and how much farther the second is (each measures in its own square)."""
    x, y = grid()
    row, column = (y * stones).astype(int), (x * stones).astype(int)
    turn = direction[at(py), at(px)]
    nearest, second, owner = np.full(x.shape, 9.0), np.full(x.shape, 9.0), np.zeros(x.shape, dtype=int)
    for dy, dx in itertools.product(range(-2, 3), repeat=2):
        inside = (row + dy >= 0) & (row + dy < stones) & (column + dx >= 0) & (column + dx < stones)
        stone = np.where(inside, (row + dy) * stones + column + dx, 0)
        ox, oy, t = x - px[stone], y - py[stone], turn[stone]
        along, across = ox * np.cos(t) + oy * np.sin(t), oy * np.cos(t) - ox * np.sin(t)
        distance = np.where(inside, np.maximum(np.abs(along), np.abs(across)), 9.0)
        closer = distance < nearest
        second = np.where(closer, nearest, np.minimum(second, distance))
        owner, nearest = np.where(closer, stone, owner), np.where(closer, distance, nearest)
    return owner, second - nearest


def mosaic(seed: int = SEED, stones: int = 48) -> Image.Image:
    """A fish of square stones that follow its outlines: Voronoi cells in rotated squares, relaxed a few times."""
    random = np.random.default_rng(seed)
    x, y = grid()
    drawing, direction = fish(x, y)
    total = stones * stones
    rows, columns = np.divmod(np.arange(total), stones)
    px = (columns + 0.5 + random.uniform(-0.2, 0.2, total)) / stones
    py = (rows + 0.5 + random.uniform(-0.2, 0.2, total)) / stones
    for _ in range(7):
        owner, gap = nearest_stones(px, py, direction, stones)
        count = np.maximum(np.bincount(owner.ravel(), minlength=total), 1)
        px = np.bincount(owner.ravel(), x.ravel(), total) / count
        py = np.bincount(owner.ravel(), y.ravel(), total) / count
    gap = gap * SIZE
    colours = drawing[at(py), at(px)] * random.normal(1, 0.09, (total, 1)) + random.normal(0, 0.018, (total, 3))
    tilt = random.normal(0, 5, (2, total))
    shine = 1 + (x - px[owner]) * tilt[0][owner] + (y - py[owner]) * tilt[1][owner]
    face = (
        colours[owner]
        * (shine + 0.03 * noise(random, 160, 2) - 0.55 * slope(blurred(smooth(1.0, 6.0, gap), 1)))[..., None]
    )
    grout = colour("4a4238") * (1 + 0.12 * noise(random, 200, 2))[..., None]
    mask = smooth(1.6, 3.4, gap + 0.7 * noise(random, 90, 2))[..., None]
    return picture(grout * (1 - mask) + face * mask)


def poster_tile(kind: int, inks: list[str], side: int) -> Image.Image:
    """One square of the poster; `inks` are its ground, its figure and a third colour."""
    ground, figure, third = inks
    tile = Image.new("RGB", (side, side), ground)
    draw = ImageDraw.Draw(tile)
    if kind == 0:  # a quarter disc
        draw.ellipse([0, 0, 2 * side, 2 * side], fill=figure)
    elif kind == 1:  # quarter rings
        for ring, ink in enumerate((figure, ground, third, ground, figure)):
            inset = ring * side // 5
            draw.ellipse([inset, inset, 2 * side - inset, 2 * side - inset], fill=ink)
    elif kind == 2:  # a disc with a core
        for inset, ink in ((side // 8, figure), (side * 3 // 8, third)):
            draw.ellipse([inset, inset, side - inset, side - inset], fill=ink)
    elif kind == 3:  # two half discs
        draw.ellipse([0, -side // 2, side, side // 2], fill=figure)
        draw.pieslice([0, 0, side, side], 0, 180, fill=third)
    elif kind == 4:  # stripes
        for bar in range(0, 8, 2):
            draw.rectangle([bar * side // 8, 0, (bar + 1) * side // 8 - 1, side], fill=figure)
    elif kind == 5:  # a triangle
        draw.polygon([(0, 0), (side, 0), (side, side)], fill=figure)
    else:  # a leaf: where two discs overlap
        y, x = np.mgrid[0:side, 0:side]
        leaf = (np.hypot(x, side - y) < side) & (np.hypot(side - x, y) < side)
        tile.paste(figure, mask=Image.fromarray(leaf))
    return tile


def poster(seed: int = SEED, cells: int = 4) -> Image.Image:
    """A flat geometric poster: discs, rings, stripes and leaves in five inks; drawn at three times the size."""
    random = np.random.default_rng(seed)
    inks = ["#f4ead5", "#e4572e", "#f3a712", "#17324d", "#2a9d8f"]
    size = 3 * SIZE
    margin = size // 16
    side = (size - 2 * margin) // cells
    image = Image.new("RGB", (size, size), inks[0])
    ground = ""
    for index, kind in enumerate(random.permutation(np.arange(cells * cells) % 7)):
        drawn = [inks[i] for i in random.permutation(len(inks))[:3]]
        if drawn[0] == ground:  # neighbours differ
            drawn = [drawn[2], drawn[1], drawn[0]]
        ground = drawn[0]
        tile = poster_tile(int(kind), drawn, side).rotate(90 * int(random.integers(4)))
        image.paste(tile, (margin + index % cells * side, margin + index // cells * side))
    return image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def oil(seed: int = SEED) -> Image.Image:
    """A night sky in thick strokes along its swirls, broad ones first, lit from the upper left like relief."""
    random = np.random.default_rng(seed)
    motif, direction = night(random)
    canvas, relief = Image.new("RGB", (SIZE, SIZE), "#1a2140"), Image.new("L", (SIZE, SIZE))
    paint, height = ImageDraw.Draw(canvas), ImageDraw.Draw(relief)
    for count, width, length in ((2600, 20, 7), (5200, 11, 6), (9000, 6, 5)):
        starts: Array = random.uniform(0, 1, (count, 2))
        for start in starts:
            path = [start]
            for _ in range(length):
                turn = direction[at(path[-1][1]), at(path[-1][0])]
                path.append(path[-1] + width * 0.7 / SIZE * np.array([np.cos(turn), np.sin(turn)]))
            turn = direction[at(start[1]), at(start[0])]
            base = motif[at(start[1]), at(start[0])] * random.normal(1, 0.10) + random.normal(0, 0.025, 3)
            for bristle in range(-2, 3):
                beside = np.array([-np.sin(turn), np.cos(turn)]) * bristle * width / 5
                track = [tuple(point * SIZE + beside) for point in path]
                shade = np.clip(base * random.normal(1, 0.06), 0, 1) * 255
                paint.line(track, fill=tuple(shade.astype(int)), width=max(2, width // 4), joint="curve")
                height.line(track, fill=int(random.uniform(90, 255)), width=max(2, width // 4), joint="curve")
    light = 1 - 0.75 * slope(blurred(np.asarray(relief, dtype=np.float64) / 255, 1))
    return picture(np.asarray(canvas, dtype=np.float64) / 255 * light[..., None])


STYLES: dict[str, Callable[[], Image.Image]] = {
    "watercolour.jpg": watercolour,
    "woodcut.jpg": woodcut,
    "mosaic.jpg": mosaic,
    "poster.png": poster,
    "oil.jpg": oil,
}


def save(image: Image.Image, path: Path) -> None:
    if path.suffix == ".png":
        image.quantize(32, dither=Image.Dither.NONE).save(path, optimize=True)
    else:
        image.save(path, quality=82, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the style pictures.")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in STYLES.items():
        save(draw(), folder / name)
        print(folder / name)


if __name__ == "__main__":
    main()

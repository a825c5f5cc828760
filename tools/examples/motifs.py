"""What the mosaic and the oil painting show: a fish, a night sky, and the direction that stones and strokes follow."""

import numpy as np

from tools.examples.painting import SIZE, Array, colour, grid, noise, smooth


def fish(x: Array, y: Array) -> tuple[Array, Array]:
    """The mosaic's drawing: colours [H, W, 3] and the direction (radians) that its stones follow."""
    u, v = (x - 0.45) / 0.30, (y - 0.51) / 0.20
    body = 1 - np.hypot(u, v * (1 + 0.25 * u))
    tail = np.minimum(np.minimum(u - 0.85, 1.50 - u), 0.42 + 0.75 * (u - 0.85) - np.abs(v))
    fin = np.minimum(0.36 - np.abs(u + 0.05 - 0.35 * (-v - 0.8)), np.minimum(-v - 0.62, 1.35 + v + 0.25 * u))
    water = np.sin(14 * y + 2.2 * np.sin(5 * x) + 1.5 * x)
    blues = [colour(code) for code in ("123a63", "1c5f8c", "2f8fae", "7cc4c4", "d5ead9")]
    level = np.clip((water + 1) * 2.3 + 0.3 * np.sin(23 * x + 9 * y), 0, 4.4).astype(int)
    image = np.stack(blues)[level]
    scales = np.sin(16 * u) * np.cos(9 * v)
    warm = np.stack([colour(code) for code in ("c9402a", "e2702c", "f0a13a", "f6cf63")])
    image = np.where((body > 0)[..., None], warm[np.clip(1.6 + 1.3 * scales - 1.2 * v, 0, 3).astype(int)], image)
    image = np.where((np.maximum(tail, fin) > 0)[..., None] & (body < 0)[..., None], colour("b5322a"), image)
    head = (body > 0) & (u < -0.42 + 0.10 * np.cos(2 * v))
    image = np.where(head[..., None], colour("f3d9a0"), image)
    for reach, code in ((0.24, "8f2a22"), (0.18, "fbf5e6"), (0.11, "15181d")):
        image = np.where((np.hypot(u + 0.70, (v + 0.12) * 0.66) < reach)[..., None], colour(code), image)
    rim = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    image = np.where((rim < 0.085)[..., None], colour("efe3c6"), image)
    image = np.where(((rim < 0.06) & (rim > 0.03))[..., None], colour("a5302a"), image)
    gy, gx = np.gradient(np.where(rim < 0.1, rim * 4, np.where(body > -0.25, body, 0.2 * water)))
    return image, np.arctan2(gy, gx)


def night(random: np.random.Generator) -> tuple[Array, Array]:
    """The oil painting's motif: colours [H, W, 3] and the direction (radians) that its strokes follow."""
    x, y = grid()
    swirls = [(0.36, 0.34, 0.20, 1), (0.68, 0.22, 0.13, -1), (0.12, 0.15, 0.10, 1)]
    fx, fy = np.ones_like(x), 0.25 * np.cos(6 * x)
    light = np.zeros_like(x)
    for cx, cy, reach, sense in swirls:
        dx, dy = x - cx, y - cy
        pull = 3.2 * np.exp(-(dx * dx + dy * dy) / (2 * reach * reach)) / reach
        fx, fy = fx - sense * dy * pull * 1.6, fy + sense * dx * pull * 1.6
        r = np.hypot(dx, dy)
        light += np.exp(-((r / (0.30 * reach)) ** 2)) + 0.30 * np.exp(-((r / reach) ** 2)) * (
            1 + np.sin(r / reach * 14)
        )
    for cx, cy in ((0.88, 0.09), (0.53, 0.08), (0.90, 0.42), (0.08, 0.46), (0.57, 0.47)):
        light += 0.9 * np.exp(-((np.hypot(x - cx, y - cy) / 0.022) ** 2)) + 0.35 * np.exp(
            -((np.hypot(x - cx, y - cy) / 0.06) ** 2)
        )
    tone = np.clip(0.42 + 0.5 * noise(random, 4, 4) + 0.25 * smooth(0.1, 0.6, y), 0, 1)[..., None]
    sky = colour("142a5e") * (1 - tone) + colour("3f7fc0") * tone
    light = np.clip(light, 0, 1.15)[..., None]
    image = sky * (1 - light) + (colour("f5c542") * np.minimum(light, 1) + 0.18 * np.clip(light - 0.7, 0, 1))
    for base, height, cells, dark, bright in ((0.64, 0.10, 3, "1c4a4f", "3f8f6a"), (0.78, 0.08, 4, "14302c", "7a8f2e")):
        ridge = base + height * noise(random, cells, 3)[SIZE // 2][None, :]
        tone = np.clip(0.5 + 0.55 * np.sin((y - ridge) * 60 + 6 * x) + 0.3 * noise(random, 9, 2), 0, 1)[..., None]
        hill = (y > ridge)[..., None]
        image = np.where(hill, colour(dark) * (1 - tone) + colour(bright) * tone, image)
        slope = np.broadcast_to(np.gradient(ridge, axis=1) * SIZE, x.shape)
        fx, fy = np.where(hill[..., 0], 1.0, fx), np.where(hill[..., 0], slope + 0.15 * np.sin(9 * x), fy)
    return image, np.arctan2(fy, fx)

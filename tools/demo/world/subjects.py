"""Who and what the miniature pictures show: names, glyphs, which are held out, and their pixels.

The pixels are glyphs of Noto Color Emoji (SIL Open Font License), drawn through Pillow at the one size the font's
bitmaps have. Scenes are made elsewhere.
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tools.demo.world.brush import Array
from uso.errors import ConfigError

Kind = Literal["animal", "figure", "plant", "food", "thing", "vehicle", "building"]

FONT_FILE = "NotoColorEmoji.ttf"
FONT_PLACES = tuple(
    Path(folder) / FONT_FILE
    for folder in (
        "/usr/share/fonts/truetype/noto",
        "/usr/share/fonts/noto",
        "/usr/share/fonts/google-noto-emoji",
        "/usr/share/fonts/google-noto-color-emoji-fonts",
        "/usr/local/share/fonts",
    )
)
BITMAP_SIZE = 109
"""The size of the font's bitmaps; Pillow refuses any other."""

GLYPH_SIDE = 144
"""Side of the square that a glyph is fitted into, in pixels (its bitmaps are 136 x 128)."""


@dataclass(frozen=True)
class Subject:
    """Something with a name: `name` is one noun in the singular, `glyph` its emoji.

    `tint` is how far its colours may turn, in turns of hue: things come in any colour, animals hardly.
    """

    name: str
    glyph: str
    kind: Kind
    tint: float = 0.03
    held_out: bool = False

    @property
    def article(self) -> str:
        return "an" if self.name[0] in "aeio" or self.name == "umbrella" else "a"


def _of(kind: Kind, tint: float, names: str, held_out: str = "") -> list[Subject]:
    pairs = [(pair.split("=")[0], pair.split("=")[1]) for pair in (names + " " + held_out).split()]
    kept = len(names.split())
    return [
        Subject(name.replace("_", " "), glyph, kind, tint, held_out=number >= kept)
        for number, (name, glyph) in enumerate(pairs)
    ]


SUBJECTS: tuple[Subject, ...] = tuple(
    _of(
        "animal",
        0.03,
        "fox=🦊 cat=🐈 dog=🐕 rabbit=🐇 panda=🐼 frog=🐸 penguin=🐧 duck=🦆 bat=🦇 unicorn=🦄 bee=🐝 "
        "butterfly=🦋 snail=🐌 ladybird=🐞 spider=🕷 scorpion=🦂 turtle=🐢 snake=🐍 octopus=🐙 crab=🦀 "
        "fish=🐠 whale=🐳 crocodile=🐊 tiger=🐅 zebra=🦓 elephant=🐘 camel=🐪 kangaroo=🦘 cow=🐄 "
        "horse=🐎 pig=🐖 sheep=🐑 deer=🦌 peacock=🦚 parrot=🦜 swan=🦢 flamingo=🦩 hedgehog=🦔 dragon=🐉 "
        "dinosaur=🦕 squirrel=🐿 seal=🦭 lobster=🦞",
        "owl=🦉 dolphin=🐬 giraffe=🦒 rooster=🐓",
    )
    + _of("figure", 0.05, "snowman=⛄ ghost=👻 mermaid=🧜 teddy_bear=🧸", "robot=🤖")
    + _of("plant", 0.04, "cactus=🌵 mushroom=🍄 sunflower=🌻 rose=🌹 tulip=🌷 fir_tree=🌲 palm=🌴")
    + _of(
        "food",
        0.05,
        "apple=🍎 pear=🍐 banana=🍌 strawberry=🍓 carrot=🥕 pumpkin=🎃 hamburger=🍔 ice_cream=🍦 cake=🎂 "
        "pretzel=🥨 doughnut=🍩",
        "pineapple=🍍",
    )
    + _of(
        "thing",
        0.5,
        "cup=☕ balloon=🎈 gift=🎁 hat=🎩 crown=👑 shoe=👟 boot=👢 dress=👗 backpack=🎒 umbrella=☂ "
        "key=🔑 lock=🔒 hammer=🔨 camera=📷 television=📺 telephone=☎ clock=⏰ candle=🕯 lantern=🏮 "
        "violin=🎻 trumpet=🎺 drum=🥁 chair=🪑 kite=🪁 football=⚽ dice=🎲 pawn=♟ anchor=⚓ bell=🔔 "
        "bucket=🪣 basket=🧺 sword=🗡 telescope=🔭 vase=🏺",
        "teapot=🫖 guitar=🎸",
    )
    + _of(
        "vehicle",
        0.5,
        "car=🚗 bus=🚌 tractor=🚜 scooter=🛵 train=🚂 plane=✈ rocket=🚀 helicopter=🚁 sailing_boat=⛵ sledge=🛷",
        "bicycle=🚲",
    )
    + _of("building", 0.08, "house=🏠 tent=⛺ tower=🗼 fountain=⛲ circus=🎪", "castle=🏰")
)
"""Every subject. Held out from training: owl, dolphin, giraffe, rooster, robot, pineapple, teapot, guitar, bicycle,
castle."""

PROPS: tuple[Subject, ...] = tuple(
    _of(
        "thing",
        0.1,
        "tree=🌳 ball=🏀 star=⭐ heart=❤ flag=🚩 diamond=💎 leaf=🍁 bone=🦴 book=📕 egg=🥚 lamp=💡 shell=🐚",
    )
)
"""What may stand beside a subject; never a subject itself."""

BY_NAME = {subject.name: subject for subject in SUBJECTS}


@lru_cache(maxsize=1)
def font() -> ImageFont.FreeTypeFont:
    """The emoji font.

    Raises:
        ConfigError: it is not installed.
    """
    for path in FONT_PLACES:
        if path.is_file():
            return ImageFont.truetype(str(path), BITMAP_SIZE)
    try:
        return ImageFont.truetype(FONT_FILE, BITMAP_SIZE)  # wherever Pillow looks for fonts on this system
    except OSError as error:
        raise ConfigError(
            "The miniature subjects are glyphs of Noto Color Emoji, which is not installed. On Debian and Ubuntu: "
            "sudo apt-get install fonts-noto-color-emoji"
        ) from error


@cache
def glyph(subject: Subject) -> Array:
    """A subject's pixels [GLYPH_SIDE, GLYPH_SIDE, 4], RGB and coverage in [0, 1]: trimmed, centred, foot at the edge.

    Raises:
        ConfigError: the font is missing, or has no such glyph.
    """
    canvas = Image.new("RGBA", (170, 150))
    ImageDraw.Draw(canvas).text((10, 10), subject.glyph, font=font(), embedded_color=True)
    box = canvas.getchannel("A").point(lambda value: 255 if value > 24 else 0).getbbox()
    if box is None:
        raise ConfigError(f"The emoji font has no glyph for {subject.name}: install a newer fonts-noto-color-emoji.")
    pixels = np.asarray(canvas.crop(box), np.float32) / 255
    scale = (GLYPH_SIDE - 8) / max(pixels.shape[:2])
    pixels[..., :3] *= pixels[..., 3:]
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    pixels = np.clip(cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC), 0, 1)
    square = np.zeros((GLYPH_SIDE, GLYPH_SIDE, 4), np.float32)
    left, top = (GLYPH_SIDE - size[0]) // 2, GLYPH_SIDE - 4 - size[1]
    square[top : top + size[1], left : left + size[0]] = pixels
    square[..., :3] /= np.maximum(square[..., 3:], 1e-3)
    return np.clip(square, 0, 1)


def tinted(pixels: Array, hue: float, value: float) -> Array:
    """A glyph with its hues turned by `hue` turns and its brightness times `value`; greys stay grey."""
    if hue == 0 and value == 1:
        return pixels
    colours = cv2.cvtColor(pixels[..., :3], cv2.COLOR_RGB2HSV)
    colours[..., 0] = (colours[..., 0] + 360 * hue) % 360
    colours[..., 2] = np.clip(colours[..., 2] * np.float32(value), 0, 1)
    return np.dstack([cv2.cvtColor(colours, cv2.COLOR_HSV2RGB), pixels[..., 3]])

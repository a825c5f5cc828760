"""The levels of speed a person can choose, and what each says of itself. No tensors here: the page reads this too."""

from typing import Literal, get_args

Speed = Literal["exact", "fast"]
Compile = Literal["auto", "on", "off"]

SPEEDS: tuple[Speed, ...] = get_args(Speed)
COMPILES: tuple[Compile, ...] = get_args(Compile)

"""Write the content photographs of `assets/examples/` from scikit-image's bundled public-domain data, as JPEG.

python -m tools.example_photos [FOLDER]
"""

import argparse
from pathlib import Path

from PIL import Image
from skimage import data

from uso.config import ROOT

FOLDER = ROOT / "assets" / "examples"

PHOTOS = {
    "astronaut.jpg": data.astronaut,
    "cat.jpg": data.chelsea,
    "coffee.jpg": data.coffee,
    "photographer.jpg": data.camera,
    "rocket.jpg": data.rocket,
}
"""All five come with the package (nothing is downloaded); `assets/README.md` has the licence of each."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the content photographs.")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, load in PHOTOS.items():
        Image.fromarray(load()).convert("RGB").save(folder / name, quality=92, optimize=True)
        print(folder / name)


if __name__ == "__main__":
    main()

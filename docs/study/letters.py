"""Draws a folder of pictures: letters in the fonts that come with matplotlib, at any place, size and angle.

    python docs/study/letters.py letters

Pictures are letters/train/<letter>/*.png and letters/test/<letter>/*.png, 28 x 28 pixels, light on dark, as
`--data.dataset letters` reads them.
"""

import argparse
import random
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont
from rich.progress import track

LETTERS = "ABCDEFGHIJ"
COUNTS = {"train": 20_000, "test": 4_000}
FONTS = sorted(
    path
    for path in (Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("*.ttf")
    if path.name.startswith(("DejaVuSans", "DejaVuSerif", "STIXGeneral")) and "Display" not in path.name
)  # the others have symbols in the place of letters, or few letters
SIZE = 28
LARGE = 4 * SIZE  # drawn large, so that turning and shrinking keep edges smooth


def picture(letter: str, draw: random.Random) -> Image.Image:
    """One letter, (28, 28) pixels in grey."""
    font = ImageFont.truetype(str(draw.choice(FONTS)), draw.randint(64, 92))
    large = Image.new("L", (LARGE, LARGE))
    middle = (LARGE / 2 + draw.uniform(-12, 12), LARGE / 2 + draw.uniform(-12, 12))
    ImageDraw.Draw(large).text(middle, letter, fill=255, font=font, anchor="mm")
    turned = large.rotate(draw.uniform(-20, 20), Image.Resampling.BILINEAR)
    return turned.resize((SIZE, SIZE), Image.Resampling.BOX)


def draw_folder(folder: Path, counts: dict[str, int]) -> None:
    """Draw as many pictures as asked of each part, the letters in turn.

    Args:
        folder: must not exist yet.
        counts: pictures, by part.

    Raises:
        FileExistsError: the folder exists.
    """
    folder.mkdir(parents=True)
    draw = random.Random(0)
    for part, count in counts.items():
        for letter in LETTERS:
            (folder / part / letter).mkdir(parents=True)
        for number in track(range(count), part):
            letter = LETTERS[number % len(LETTERS)]
            picture(letter, draw).save(folder / part / letter / f"{number:05}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    draw_folder(parser.parse_args().folder, COUNTS)

"""The files of one sort below a folder."""

import os
from collections.abc import Iterator
from pathlib import Path

#: Of image files that are looked for.
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")


def below(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Files that end so, in any case, in the folder and the folders in it, in order; hidden ones are left alone."""
    for place, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(suffixes) and not name.startswith("."):
                yield Path(place, name)

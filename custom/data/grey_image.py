# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""One image file, read as a small grey square: bit depth, colour, transparency and orientation each with a stated fate.

- Grey of 9 to 16 bits keeps its values here; `to_bytes` scales those of a whole site by one rule.
- Colour, palette and black-and-white images become grey.
- Transparent pixels become black, the background of an X-ray.
- The EXIF orientation is applied.
- 16-bit colour, floating point, 16-bit with white as 0, and several frames are refused: Pillow would take one byte of
  two, or the first frame, without a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from custom.data.folders import IMAGE_SUFFIXES

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP")
DEPTHS = (8, 10, 12, 14, 16)
UNREADABLE = "images that cannot be read"
NO_IMAGE = "files that are not images"
ORIENTATION, PHOTOMETRIC = 0x0112, 262  # tags of EXIF and TIFF


class Grey(NamedTuple):
    """One image.

    Attributes:
        pixels: of shape (side, side): uint8, or uint16 where the file has more than 8 bits a pixel.
        peak: the largest value in the file where it has more than 8 bits a pixel, else 0.
        kind: facts that should not depend on the class: `format`, `bit depth`, `colour` and `size`.
        transparent: some pixels were.
    """

    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    peak: int
    kind: dict[str, str]
    transparent: bool = False


def read_grey(side: int, path: Path) -> Grey | str:
    """The image in the middle of a file, or why it is not read, in words for people that name no file.

    The content decides about the format, since names are often wrong: a WebP image may be called .jpeg.
    """
    if not path.is_file():  # such as a pipe, which would be waited for
        return UNREADABLE
    try:
        with Image.open(path, formats=FORMATS) as image:
            return _refusal(image) or _read(image, side)
    except UnidentifiedImageError:
        return UNREADABLE if path.suffix.lower() in IMAGE_SUFFIXES else NO_IMAGE
    except Exception:  # a damaged image can raise anything
        return UNREADABLE


def _refusal(image: Image.Image) -> str:
    """Why this image is not read, or nothing."""
    if image.format not in ("JPEG", "MPO") and getattr(image, "n_frames", 1) > 1:  # of MPO, the others are previews
        return "images of several frames"
    wide = isinstance(image, ImageFile.ImageFile) and any(";16" in str(tile[3]) for tile in image.tile)
    if wide and image.format != "BMP" and image.mode not in ("I;16", "I;16B", "I;16L", "I"):
        return "16-bit images in colour or with transparency"
    if image.mode == "F":
        return "images of floating-point numbers"
    if image.mode.startswith("I") and isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC) == 0:
        return "TIFF images of more than 8 bits with white as 0"
    return ""


def _read(image: Image.Image, side: int) -> Grey | str:
    high = image.mode.startswith("I")
    kind = {
        "format": "JPEG" if image.format == "MPO" else str(image.format),
        "bit depth": "8 bits",
        "colour": "grey" if high or image.mode in ("L", "LA", "1") else "colour",
        "size": f"{image.width} x {image.height}",
    }
    if image.format == "JPEG":
        image.draft("L", (2 * side, 2 * side))  # decodes a large JPEG at a half or a quarter of its size
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if high:
        return _read_high(image, side, kind)
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        transparent = bool((np.asarray(image)[..., 3] < 255).any())
        black = Image.new("RGBA", image.size, "black")
        return Grey(fit(Image.alpha_composite(black, image), side), 0, kind, transparent)
    return Grey(fit(image, side), 0, kind)


def _read_high(image: Image.Image, side: int, kind: dict[str, str]) -> Grey | str:
    values = np.asarray(image).astype(np.float32)
    low, peak = int(values.min()), int(values.max())
    if low < 0 or peak >= 2 ** DEPTHS[-1]:
        return "images of more than 16 bits or with negative values"
    gone = values == image.info.get("transparency", -1)  # a PNG file may name one value
    values[gone] = 0
    small = np.asarray(ImageOps.fit(Image.fromarray(values), (side, side), Image.Resampling.BICUBIC))
    kind["bit depth"] = f"{depth_of(peak)} bits used of more than 8"  # 12 and 16 bits may lie in files of one kind
    return Grey(np.rint(small.clip(0, 2 ** DEPTHS[-1] - 1)).astype(np.uint16), peak, kind, bool(gone.any()))


def depth_of(peak: int) -> int:
    """The bits a pixel that a value needs, rounded up to 8, 10, 12, 14 or 16."""
    return next(bits for bits in DEPTHS if peak < 2**bits)


def to_bytes(pixels: NDArray[np.uint8] | NDArray[np.uint16], bits: int) -> NDArray[np.uint8]:
    """Values of so many bits as bytes: 0 stays 0, and the largest value of that depth becomes 255. Bytes stay bytes."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    return np.rint(pixels.clip(0, 2**bits - 1) * (255 / (2**bits - 1))).astype(np.uint8)


def fit(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """Grey, cut to the square in the middle and resized, as MedMNIST does (https://arxiv.org/abs/2110.14795)."""
    return np.asarray(ImageOps.fit(image.convert("L"), (side, side), Image.Resampling.BICUBIC))

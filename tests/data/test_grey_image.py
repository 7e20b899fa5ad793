# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Every kind of image file becomes the same grey picture, or is refused with a reason."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from custom.data.grey_image import NO_IMAGE, UNREADABLE, Grey, depth_of, read_grey, to_bytes

RAMP = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))  # 32 x 32, darker to the left
PLAIN = Image.fromarray(RAMP)


def saved(path: Path, image: Image.Image, kind: str, **how: object) -> Grey | str:
    image.save(path, kind, **how)
    return read_grey(32, path)


def pixels(read: Grey | str) -> np.ndarray:
    assert isinstance(read, Grey), read
    return read.pixels.astype(int)


@pytest.mark.parametrize(
    ("kind", "mode"), [(kind, mode) for kind in ("PNG", "BMP", "TIFF") for mode in ("L", "RGB", "P")] + [("GIF", "P")]
)
def test_formats_without_loss_give_the_same_bytes(tmp_path: Path, kind: str, mode: str) -> None:
    assert np.array_equal(pixels(saved(tmp_path / "x", PLAIN.convert(mode), kind)), RAMP)


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "L"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("WEBP", "RGB")])
def test_formats_with_loss_are_close(tmp_path: Path, kind: str, mode: str) -> None:
    """Whatever the suffix says."""
    read = pixels(saved(tmp_path / "x.png", PLAIN.convert(mode), kind, quality=95))
    assert np.abs(read - RAMP).mean() < 3


def test_black_and_white_is_0_and_255(tmp_path: Path) -> None:
    read = pixels(saved(tmp_path / "x.png", Image.fromarray(RAMP > 100), "PNG"))
    assert np.array_equal(read, np.where(RAMP > 100, 255, 0))


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_many_bits_is_scaled_by_the_real_depth(tmp_path: Path, bits: int, kind: str) -> None:
    """v of 8 bits is v * (2**bits - 1) / 255 of so many bits, to within rounding."""
    values = np.rint(RAMP * ((2**bits - 1) / 255)).astype(np.uint16)
    values[0, 0] = 2**bits - 1
    read = saved(tmp_path / "x", Image.fromarray(values), kind)
    assert isinstance(read, Grey)
    kind = f"{bits} bits used of more than 8"
    assert (read.pixels.dtype, read.peak, read.kind["bit depth"]) == (np.uint16, 2**bits - 1, kind)
    assert depth_of(read.peak) == bits
    scaled = to_bytes(read.pixels, bits)
    assert scaled[0, 0] == 255
    assert np.array_equal(scaled[1:], RAMP[1:])


def test_the_depth_is_rounded_up() -> None:
    peaks = {0: 8, 255: 8, 256: 10, 1023: 10, 1024: 12, 4095: 12, 4096: 14, 16383: 14, 16384: 16, 65535: 16}
    assert {peak: depth_of(peak) for peak in peaks} == peaks


def test_transparent_pixels_are_black(tmp_path: Path) -> None:
    """The left half is transparent, whatever colour it hides; opaque pixels stay as they are."""
    alpha = np.where(np.arange(32) < 16, 0, 255).astype(np.uint8)
    expected = np.where(np.arange(32) < 16, 0, RAMP)
    for mode in ("LA", "RGBA"):
        image = PLAIN.convert(mode)
        image.putalpha(Image.fromarray(np.tile(alpha, (32, 1))))
        read = saved(tmp_path / f"{mode}.png", image, "PNG")
        assert np.array_equal(pixels(read), expected)
        assert isinstance(read, Grey)
        assert read.transparent
        opaque = saved(tmp_path / f"{mode}-opaque.png", PLAIN.convert(mode), "PNG")
        assert np.array_equal(pixels(opaque), RAMP)
        assert isinstance(opaque, Grey)
        assert not opaque.transparent
    one_value = Image.fromarray(RAMP.astype(np.uint16) * 257)
    read = saved(tmp_path / "16.png", one_value, "PNG", transparency=248 * 257)
    assert pixels(read)[:, -1].tolist() == [0] * 32


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, np.transpose),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a.T, 2)),
        (8, np.rot90),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_the_exif_orientation_is_applied(tmp_path: Path, kind: str, orientation: int, upright: object) -> None:
    """By the table of EXIF 2.3: 6 is turned clockwise to be upright, and so on."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    corner = RAMP.copy()
    corner[:8] = 255  # so that no two orientations look alike
    read = saved(tmp_path / "x", Image.fromarray(corner), kind, exif=tags)
    assert np.array_equal(pixels(read), upright(corner))  # type: ignore[operator]


def test_the_exif_orientation_of_a_jpeg_is_applied(tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    read = pixels(saved(tmp_path / "x.jpg", PLAIN, "JPEG", exif=tags, quality=95))
    assert np.abs(read - np.rot90(RAMP, -1)).mean() < 3


def png16(colour_type: int, channels: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 4, 4, 16, colour_type, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(4 * channels * 2)) * 4)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_16_bits_in_colour_or_with_transparency_are_refused(tmp_path: Path, colour_type: int, channels: int) -> None:
    """Pillow would keep the high byte, which is almost nothing of 12 bits in 16."""
    path = tmp_path / "x.png"
    path.write_bytes(png16(colour_type, channels))
    assert read_grey(4, path) == "16-bit images in colour or with transparency"


def test_what_cannot_be_scaled_is_refused(tmp_path: Path) -> None:
    ramp = RAMP.astype(np.int32)
    assert saved(tmp_path / "f.tif", PLAIN.convert("F"), "TIFF") == "images of floating-point numbers"
    beyond = "images of more than 16 bits or with negative values"
    assert saved(tmp_path / "i.tif", Image.fromarray(ramp * 1000), "TIFF") == beyond
    assert saved(tmp_path / "n.tif", Image.fromarray(ramp - 1), "TIFF") == beyond
    negative = saved(tmp_path / "w.tif", Image.fromarray(RAMP.astype(np.uint16) * 257), "TIFF", tiffinfo={262: 0})
    assert negative == "TIFF images of more than 8 bits with white as 0"


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_several_frames_are_refused(tmp_path: Path, kind: str) -> None:
    several = saved(tmp_path / "x", PLAIN, kind, save_all=True, append_images=[PLAIN.rotate(90)])
    assert several == "images of several frames"


def test_what_is_no_image_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    for name in ("a.txt", "a.dcm", "a"):
        (tmp_path / name).write_text("no image")
        assert read_grey(8, tmp_path / name) == NO_IMAGE
    (tmp_path / "a.jfif").write_text("no image")
    assert read_grey(8, tmp_path / "a.jfif") == UNREADABLE
    PLAIN.save(tmp_path / "cut", "PNG")
    (tmp_path / "cut").write_bytes((tmp_path / "cut").read_bytes()[:-30])
    assert read_grey(8, tmp_path / "cut") == UNREADABLE


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f.jpeg")
    assert read_grey(8, tmp_path / "f.jpeg") == UNREADABLE

"""What containers say of cropping: what is not damaged is tested by pictures, in test_geometry.py."""

from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from avshare_jax.data.cropping import container_cropping
from tests.data.hostile import clean_aperture, moving_image, pixel_crop, write


def make(folder, container):
    frames = moving_image(0.5)
    if container == "mp4":
        return clean_aperture(write(folder / "video.mp4", frames), 48, 40, Fraction(3), Fraction(-2))
    return pixel_crop(write(folder / "video.mkv", frames, codec="ffv1"), 11, 2, 5, 6)


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_cropping_of_an_undamaged_file(tmp_path, container):
    path = make(tmp_path, container)
    with av.open(path) as opened:
        assert container_cropping(path, opened.streams.video[0]) == (11, 2, 5, 6)


@pytest.mark.parametrize("name", ["video.mp4", "video.mkv", "video.ts", "video.avi"])
def test_most_files_have_none(tmp_path, name):
    path = write(tmp_path / name, moving_image(0.5))
    with av.open(path) as opened:
        assert container_cropping(path, opened.streams.video[0]) == (0, 0, 0, 0)


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_damage_to_a_header_is_no_error(tmp_path, container):
    """Sizes that lead out of the file, or back, neither end nor hold up the search."""
    path, random, found = make(tmp_path, container), np.random.default_rng(0), set()
    content = path.read_bytes()
    stream = SimpleNamespace(id=1, index=0)
    names = SimpleNamespace(name={"mp4": "mov,mp4", "mkv": "matroska,webm"}[container])
    stream.container = SimpleNamespace(format=names, streams=SimpleNamespace(video=(stream,)))
    place = content.index({"mp4": b"moov", "mkv": b"\x16\x54\xae\x6b"}[container])
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[min(place + random.integers(-4, 600), len(content) - 1)] = random.integers(256)
        path.write_bytes(damaged[: random.integers(place, len(content) + 1)])
        found.add(container_cropping(path, stream))
    assert {(0, 0, 0, 0), (11, 2, 5, 6)} < found and min(map(min, found)) >= 0

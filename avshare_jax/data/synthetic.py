"""Videos and records made of noise, for measuring; they are as large in JPEG and as hard to decode as films."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import simplejpeg

from avshare_jax.data.frontend import FrontEnd


def make_images(count: int, height: int, width: int, seed: int) -> Iterator[np.ndarray]:
    """Yields (height, width, 3) uint8 images of a texture that drifts and changes, about as large in JPEG as films."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(height + 64, width + 64, 3)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 2.0) * 220 + 128
    for index in range(count):
        top, left = (round(32 + 31 * np.sin(index * speed)) for speed in (0.07, 0.11))
        part = texture[top : top + height, left : left + width]
        yield np.clip(part + 4 * noise[:height, :width] * np.cos(index), 0, 255).astype(np.uint8)


def make_record(number: int, frontend: FrontEnd, num_frames: int, width: int) -> dict[str, Any]:
    """A record of `frontend`'s size with `num_frames` JPEG frames, `width` pixels wide, and as much sound."""
    images = make_images(num_frames, frontend.short_side, width, number)
    rows = round(num_frames / frontend.fps * frontend.sample_rate / frontend.hop_length)
    noise = np.random.default_rng(number).normal(size=(rows, frontend.mels))
    return {
        "video_id": f"video_{number}",
        "source_id": f"video_{number}",
        "frames": [simplejpeg.encode_jpeg(image, quality=90, colorsubsampling="420") for image in images],
        "log_mel": noise.astype(np.float32),
        "has_video": True,
        "has_audio": True,
        "labels": (),
    }


def encode_video(path: Path, seconds: int) -> None:
    """Writes an mp4 file of 640 x 360 pixels at 25 frames per second, H.264 and AAC, as platforms deliver them."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "veryfast", "crf": "23"})
        video.width, video.height, video.pix_fmt = 640, 360, "yuv420p"
        audio = container.add_stream("aac", rate=44_100, layout="stereo")
        for image in make_images(25 * seconds, 360, 640, 0):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode())
        waveform = (0.1 * rng.standard_normal((2, 44_100 * seconds))).astype(np.float32)
        sound = av.AudioFrame.from_ndarray(waveform, format="fltp", layout="stereo")
        sound.sample_rate, sound.pts = 44_100, 0
        container.mux(audio.encode(sound))
        container.mux(audio.encode())

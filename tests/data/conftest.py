"""Files and data sets whose content is known."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import simplejpeg
from ml_collections import ConfigDict

from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.records import Contents, write_dataset


@pytest.fixture
def encode() -> Callable[..., Path]:
    """Writes a media file from frames (N, H, W, 3) and a waveform (N,) or (channels, N); either may be missing."""

    def write(
        path: Path,
        frames: np.ndarray | None,
        waveform: np.ndarray | None,
        *,
        fps: Fraction | int = 16,
        sample_rate: int = 16_000,
        video_start: float = 0.0,
        audio_start: float = 0.0,
        file_start: float = 0.0,
    ) -> Path:
        with av.open(path, "w", options={"output_ts_offset": str(file_start)}) as container:
            if frames is not None:
                video = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "10"})
                video.width, video.height, video.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
            if waveform is not None:
                waveform = np.atleast_2d(waveform).astype(np.float32)
                layout = "mono" if len(waveform) == 1 else "stereo"
                audio = container.add_stream("aac", rate=sample_rate, layout=layout)
            for index, image in enumerate(() if frames is None else frames):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.time_base = 1 / Fraction(fps)
                frame.pts = index + round(video_start * fps)
                container.mux(video.encode(frame))
            if frames is not None:
                container.mux(video.encode())
            if waveform is not None:
                sound = av.AudioFrame.from_ndarray(waveform, format="fltp", layout=layout)
                sound.sample_rate = sample_rate
                sound.time_base = Fraction(1, sample_rate)
                sound.pts = round(audio_start * sample_rate)
                container.mux(audio.encode(sound))
                container.mux(audio.encode())
        return path

    return write


TINY_FRONTEND = FrontEnd(fps=4.0, short_side=16, sample_rate=1_000, n_fft=100, hop_length=50, mels=3)


@pytest.fixture(scope="session")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set "tiny": 11 training and 5 test videos whose content says which video and which time it is.

    Frame k (16 x 24) of video v has the red value 20 v and the green value 5 k; row r of its spectrogram is [v, r, 0].
    Training video 3 has no sound.
    """
    directory = tmp_path_factory.mktemp("data")

    def record(video: int, split: str, num_frames: int) -> dict:
        images = np.zeros((num_frames, 16, 24, 3), np.uint8)
        images[..., 0] = 20 * video
        images[..., 1] = 5 * np.arange(num_frames)[:, None, None]
        rows = 0 if (split, video) == ("train", 3) else num_frames * 5
        log_mel = np.stack([np.full(rows, video), np.arange(rows), np.zeros(rows)], axis=1)
        return {
            "video_id": f"{split}_{video}",
            "source_id": f"{split}_{video}",
            "frames": [simplejpeg.encode_jpeg(image, quality=98, colorsubsampling="444") for image in images],
            "log_mel": log_mel.astype(np.float32),
            "has_video": True,
            "has_audio": rows > 0,
            "labels": (("even", "odd")[video % 2],) if split == "train" else (),
        }

    splits = {
        "train": [record(video, "train", 40) for video in range(11)],
        "test": [record(video, "test", 30 if video else 3) for video in range(5)],
    }
    write_dataset("tiny", directory, splits, Contents(TINY_FRONTEND, jpeg_quality=98, class_names=("even", "odd")))
    return directory


@pytest.fixture(scope="session")
def without_label() -> Callable[[dict], dict]:
    """Turns a record that was read into one that can be written, without its label."""

    def turn(record: dict) -> dict:
        names = {name: record[name].decode() for name in ("video_id", "source_id")}
        return {name: value for name, value in record.items() if name != "label"} | names | {"labels": ()}

    return turn


@pytest.fixture
def data_config() -> ConfigDict:
    """3 clips of 2 frames, every other frame: 12 frames or 3 seconds; 20 rows of spectrogram a second."""
    return ConfigDict(
        {
            "train_split": "train",
            "num_clips": 3,
            "frames_per_clip": 2,
            "frame_stride": 2,
            "mel_frames": 20,
            "min_short_side": 10,
            "max_short_side": 16,
            "crop": 8,
            "num_workers": 0,
            "prefetch": 2,
            "keep_incomplete": False,
            "max_unreadable_share": 0.0,
        }
    )

"""The demo's videos: real encoded files in which sound and image are tied by one bouncing object.

An object of one of several shapes bounces off the walls among silent distractors and sounds, with a timbre of its own,
at every impact. Size sets the pitch, the speed of the impact the loudness. The class is (shape, timbre): every shape
occurs with three timbres and every timbre with three shapes, so either modality alone can reach 33 % and only both can
reach 100 %. Each second is a new shot: position, motion, colors, background and distractors are drawn again, so that
nothing but shape, size and timbre persists through a video.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np

from avshare_jax.data.workers import run_in_workers

FPS = 16
SECONDS = 8
PIXELS = 80
SAMPLE_RATE = 16_000
SHAPES = ("disc", "square", "triangle", "cross", "bar", "ring")
TIMBRES = ("full", "hollow", "bell", "organ", "chord", "plate")
CLASSES = tuple((index, timbre % len(TIMBRES)) for index in range(len(SHAPES)) for timbre in range(index, index + 3))
SPLITS = ("train", "test")
POLYGONS = {  # Corners in units of the object's radius.
    "square": [[(-0.75, -0.75), (0.75, -0.75), (0.75, 0.75), (-0.75, 0.75)]],
    "triangle": [[(0, -1.0), (1.05, 0.85), (-1.05, 0.85)]],
    "cross": [
        [(-1.0, -0.32), (1.0, -0.32), (1.0, 0.32), (-1.0, 0.32)],
        [(-0.32, -1.0), (0.32, -1.0), (0.32, 1.0), (-0.32, 1.0)],
    ],
    "bar": [[(-1.2, -0.42), (1.2, -0.42), (1.2, 0.42), (-1.2, 0.42)]],
}
PARTIALS = {  # Frequencies in units of the pitch.
    "full": (1, 2, 3, 4, 5, 6, 7),
    "hollow": (1, 3, 5, 7),
    "bell": (1, 2.76, 5.4, 8.93),
    "organ": (1, 2, 4, 8),
    "chord": (1, 1.5, 2.25, 3.375, 5.06),
    "plate": (1, 1.41, 2.55, 3.6, 4.7, 6.1),
}


@dataclasses.dataclass(frozen=True)
class Impact:
    """The object hits a wall: when (seconds from the start of the video), and how fast (0 to 1)."""

    time: float
    strength: float


def class_name(index: int) -> str:
    """Name of a class, `<shape>_<timbre>`."""
    shape, timbre = CLASSES[index]
    return f"{SHAPES[shape]}_{TIMBRES[timbre]}"


def render_video(seed: tuple[int, ...], class_index: int) -> tuple[np.ndarray, np.ndarray]:
    """Renders one video of a class; the same seed gives the same video.

    Returns:
      Frames (128, 80, 80, 3) uint8 RGB at 16 per second, and the mono waveform (128000,) float32 at 16 kHz.
    """
    rng = np.random.default_rng(seed)
    shape, timbre = CLASSES[class_index]
    size = rng.uniform(0.0, 1.0)
    radius = PIXELS * (0.12 + 0.13 * size)
    frames, impacts = [], []
    for second in range(SECONDS):
        path, hits = bounce(rng, radius)
        impacts += [Impact(second + hit.time, hit.strength) for hit in hits]
        frames.append(draw_shot(rng, SHAPES[shape], radius, path))
    pitch = 220.0 * 2 ** (2.2 * (1.0 - size))
    return np.concatenate(frames), synthesize(rng, TIMBRES[timbre], pitch, impacts)


def bounce(rng: np.random.Generator, radius: float) -> tuple[np.ndarray, list[Impact]]:
    """Moves the object for one second, drawing again until it hits walls one to three times, none near a cut.

    Between the walls, each coordinate of a bouncing object is a triangle wave of the distance traveled.

    Returns:
      Centers (16, 2) in pixels at the frames' times, and the impacts.
    """
    room = PIXELS - 2 * radius
    while True:
        start = rng.uniform(0, room, 2)
        angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 2.0) * PIXELS
        velocity = speed * np.array([np.cos(angle), np.sin(angle)])
        impacts = []
        for axis in range(2):
            first, last = sorted((start[axis] / room, (start[axis] + velocity[axis]) / room))
            walls = np.arange(np.ceil(first), np.floor(last) + 1)
            strength = abs(velocity[axis]) / (2.0 * PIXELS)
            impacts += [Impact(float(time), strength) for time in (walls * room - start[axis]) / velocity[axis]]
        times = [impact.time for impact in impacts]
        if 1 <= len(times) <= 3 and min(times) > 0.05 and max(times) < 0.75:
            traveled = start + velocity * np.arange(FPS)[:, None] / FPS
            return radius + np.abs((traveled + room) % (2 * room) - room), impacts


def draw_shot(rng: np.random.Generator, shape: str, radius: float, centers: np.ndarray) -> np.ndarray:
    """Draws one second: dark background, distractors that drift in silence, the object; (16, 80, 80, 3) uint8."""
    corners = rng.uniform(0, 70, (2, 2, 3)).astype(np.float32)
    background = cv2.resize(corners, (PIXELS, PIXELS), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    color = rng.uniform(150, 255, 3)
    count = rng.integers(2, 7)
    places, drift = rng.uniform(0, PIXELS, (count, 2)), rng.uniform(-0.5, 0.5, (count, 2)) * PIXELS
    colors, triangles = rng.uniform(90, 255, (count, 3)), rng.uniform(-1, 1, (count, 3, 2)) * PIXELS * 0.08
    frames = []
    for index, center in enumerate(centers):
        frame = background.copy()
        for place, move, tint, triangle in zip(places, drift, colors, triangles, strict=True):
            draw_polygon(frame, (place + move * index / FPS) % PIXELS + triangle, tint)
        draw_object(frame, shape, center, radius, color)
        frames.append(frame)
    return np.stack(frames)


def draw_polygon(frame: np.ndarray, corners: np.ndarray, color: np.ndarray) -> None:
    """Fills the polygon with these corners (N, 2), in pixels, in a frame; edges are smooth."""
    cv2.fillPoly(frame, [np.round(16 * corners).astype(np.int32)], color.tolist(), cv2.LINE_AA, shift=4)


def draw_object(frame: np.ndarray, shape: str, center: np.ndarray, radius: float, color: np.ndarray) -> None:
    """Draws the sounding object, all shapes of about the same area, into a frame."""
    if shape in ("disc", "ring"):
        place = np.round(16 * center).astype(int).tolist()
        reach, thickness = (0.85, -1) if shape == "disc" else (0.78, max(2, round(radius * 0.45)))
        cv2.circle(frame, place, int(16 * reach * radius), color.tolist(), thickness, cv2.LINE_AA, shift=4)
    for polygon in POLYGONS.get(shape, ()):
        draw_polygon(frame, center + radius * np.array(polygon), color)


def synthesize(rng: np.random.Generator, timbre: str, pitch: float, impacts: list[Impact]) -> np.ndarray:
    """Adds one decaying sound per impact to a noise floor; (128000,) float32 within [-1, 1]."""
    level = np.repeat(10 ** rng.uniform(-3.0, -1.9, SECONDS), SAMPLE_RATE)
    waveform = level * rng.standard_normal(SECONDS * SAMPLE_RATE)
    time = np.arange(int(0.25 * SAMPLE_RATE)) / SAMPLE_RATE
    attack = np.minimum(1.0, time / 0.004)
    for impact in impacts:
        sound = attack * tone(timbre, pitch, time, tilt=rng.uniform(0.4, 1.6))
        loudness = 0.05 + 0.3 * impact.strength
        start = int(impact.time * SAMPLE_RATE)
        waveform[start : start + len(sound)] += loudness * sound / np.sqrt(np.mean(sound**2)) * 0.3
    return np.clip(waveform, -1.0, 1.0).astype(np.float32)


def tone(timbre: str, pitch: float, time: np.ndarray, tilt: float) -> np.ndarray:
    """One impact's sound at `time` (N,) seconds after it: decaying partials, falling off with `tilt`; unscaled."""
    ratios = [ratio for ratio in PARTIALS[timbre] if ratio * pitch < SAMPLE_RATE / 2]
    return sum(ratio**-tilt * np.sin(2 * np.pi * ratio * pitch * time) for ratio in ratios) * np.exp(-12 * time)


def encode_video(path: Path, frames: np.ndarray, waveform: np.ndarray) -> None:
    """Writes frames (N, H, W, 3) uint8 and a mono waveform as an mp4 file with H.264 video and AAC audio."""
    with av.open(path, "w") as container:
        # A fixed quantizer, because x264's rate control gives other bytes each time, even with one thread.
        video = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "qp": "18", "threads": "1"})
        video.width, video.height, video.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for image in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode())
        sound = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
        # Without a time stamp, the encoder's priming would stay in the file and sound come 64 ms late.
        sound.sample_rate, sound.pts = SAMPLE_RATE, 0
        container.mux(audio.encode(sound))
        container.mux(audio.encode())


def write_video(job: tuple[Path, tuple[int, ...], int]) -> None:
    """Renders and encodes one video under a temporary name, so that a file that exists is whole."""
    path, seed, class_index = job
    partial = path.with_name(f".{path.name}.partial.mp4")
    encode_video(partial, *render_video(seed, class_index))
    partial.rename(path)


def write_demo_videos(
    directory: Path, counts: dict[str, int], seed: int, workers: int, progress: Callable[[int, int], None]
) -> None:
    """Writes the videos that are not there yet as `directory/<split>/<class>/<id>.mp4`.

    Args:
      directory: where to.
      counts: number of videos of each of `SPLITS`; classes take turns.
      seed: the videos' seed; every split and video derives its own from it.
      workers: processes to use.
      progress: called with the number of finished and of all videos.
    """
    jobs = list(missing_videos(directory, counts, seed))
    for path, _, _ in jobs:
        path.parent.mkdir(parents=True, exist_ok=True)
    for done in run_in_workers(write_video, jobs, workers):
        progress(done, len(jobs))


def missing_videos(directory: Path, counts: dict[str, int], seed: int) -> Iterator[tuple[Path, tuple[int, ...], int]]:
    """Yields (path, seed, class index) of every video that does not exist yet."""
    for split, count in counts.items():
        for index in range(count):
            class_index = index % len(CLASSES)
            path = directory / split / class_name(class_index) / f"{split}_{index:05d}.mp4"
            if not path.exists():
                yield path, (seed, SPLITS.index(split), index), class_index

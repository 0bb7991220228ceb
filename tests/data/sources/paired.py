"""Films in which a color and a pitch always go together, among distractions: what can be learned without labels.

A second is a scene. A square keeps its color through all scenes and a tone its pitch; backgrounds, places, loudness,
noise, and a distraction's colors and pitch, which are of the same four, are others in each.
"""

from pathlib import Path

import numpy as np

from tests.data.sources.learnable import CLASSES, FPS, PITCHES, SAMPLE_RATE, encode, write_kinetics_sounds

SCENES = 4
COLORS = np.array([(220, 40, 40), (40, 200, 40), (50, 70, 230), (200, 190, 40)], np.float64)


def make_frames(kind: int, seed: int) -> np.ndarray:
    """The square drifts over noise, and over two smaller ones of any color, (SCENES * FPS, 24, 32, 3) uint8."""
    random = np.random.default_rng(seed)
    frames = []
    for _ in range(SCENES):
        background = random.uniform(0, 170, 3)
        top, left, step = random.integers(0, 12), random.integers(0, 18), random.integers(-1, 2)
        others = [(random.integers(0, 17), random.integers(0, 25), random.choice(COLORS)) for _ in range(2)]
        for number in range(FPS):
            frame = np.clip(background + random.normal(0, 15, (24, 32, 3)), 0, 255)
            for y, x, color in others:
                frame[y : y + 7, x : x + 7] = color
            place = int(np.clip(left + step * number, 0, 20))
            frame[top : top + 12, place : place + 12] = COLORS[kind]
            frames.append(frame.astype(np.uint8))
    return np.stack(frames)


def make_sound(kind: int, seed: int) -> np.ndarray:
    """The tone, a softer one of any pitch, and noise, (SCENES * SAMPLE_RATE,) float32 within -1..1."""
    random = np.random.default_rng((seed, 1))
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE

    def tone(pitch: float, loudness: float) -> np.ndarray:
        return loudness * np.sin(2 * np.pi * (pitch * random.uniform(0.95, 1.05) * time + random.random()))

    scenes = [
        tone(PITCHES[kind], 0.3)
        + tone(random.choice(PITCHES), random.uniform(0.05, 0.2))
        + random.normal(size=len(time)) * 10 ** random.uniform(-3, -1.5)
        for _ in range(SCENES)
    ]
    return np.concatenate(scenes).clip(-1, 1).astype(np.float32)


def make_folder(root: Path, count: int) -> list[str]:
    """Writes films without labels; returns the arguments that prepare them."""
    for number in range(count):
        seed = 10_000 + number
        kind = number % len(CLASSES)
        encode(root / f"{number:03d}.mp4", make_frames(kind, seed), make_sound(kind, seed))
    return ["folder", f"--videos={root}"]


def make_kinetics_sounds(root: Path, train: int, val: int) -> list[str]:
    """Writes other films with their kinds as labels; returns the arguments that prepare them."""

    def film(path: Path, label: int, number: int) -> None:
        seed = 1_000 * label + number
        encode(path, make_frames(label, seed), make_sound(label, seed))

    return write_kinetics_sounds(root, film, train, val)

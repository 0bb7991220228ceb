"""Trees in the formats of publishers whose media can be told apart: color shows, and pitch sounds.

Each function writes a tree below `root` and returns the arguments of the command that prepares it.
"""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.data.sources.trees import write

FPS, SAMPLE_RATE, SECONDS = 8, 8_000, 2
COLORS = ((200, 40, 40), (40, 200, 40), (40, 60, 210), (190, 190, 40))
PITCHES = (300.0, 700.0, 1_500.0, 3_000.0)  # Hz
CLASSES = ("playing drums", "playing violin", "tap dancing", "tickling")


def make_frames(color: int | None, seed: int) -> np.ndarray:
    """A square of the color that drifts over noise, (N, 24, 32, 3) uint8; None: noise alone."""
    random = np.random.default_rng(seed)
    frames = random.integers(0, 90, (FPS * SECONDS, 24, 32, 3), np.uint8)
    top, left, step = random.integers(0, 10), random.integers(0, 16), random.integers(0, 2)
    for number, frame in enumerate(frames):
        shift = left + step * number % 8
        if color is not None:
            frame[top : top + 12, shift : shift + 12] = COLORS[color]
    return frames


def make_sound(pitch: int | None, seed: int) -> np.ndarray:
    """A tone of about the pitch with noise, (N,) float32 within -1..1; None: noise alone."""
    random = np.random.default_rng(seed)
    time = np.arange(SAMPLE_RATE * SECONDS) / SAMPLE_RATE
    sound = 0.01 * random.normal(size=len(time))
    if pitch is not None:
        sound += 0.3 * np.sin(2 * np.pi * (PITCHES[pitch] * random.uniform(0.93, 1.07) * time + random.random()))
    return sound.astype(np.float32)


def write_film(path: Path, color: int | None, pitch: int | None, seed: int, silent: bool = False) -> None:
    """Writes a film of `make_frames` and `make_sound`; `silent`: without a sound track."""
    encode(path, make_frames(color, seed), None if silent else make_sound(pitch, seed))


def encode(path: Path, frames: np.ndarray, sound: np.ndarray | None) -> None:
    """Writes frames (N, 24, 32, 3) and sound (N,) as an mp4 file of H.264 and AAC."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "12"})
        video.width, video.height, video.pix_fmt = 32, 24, "yuv420p"
        audio = None if sound is None else container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for image in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode())
        if audio:
            frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
            container.mux(audio.encode(frame))
            container.mux(audio.encode())


def write_wav(path: Path, pitch: int, seed: int) -> None:
    """Writes a wav file of 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            (32_000 * make_sound(pitch, seed)).astype(np.int16)[None], format="s16", layout="mono"
        )
        frame.sample_rate = SAMPLE_RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def make_ucf101(root: Path) -> list[str]:
    """Three classes by color, without sound tracks; in two splits, half of the groups are tested in turn."""
    lists, classes = root / "ucfTrainTestlist", ("Archery", "Bowling", "Diving")
    write(lists / "classInd.txt", *(f"{number} {name}" for number, name in enumerate(classes, 1)), newline="\r\n")
    groups: dict[bool, list[str]] = {False: [], True: []}
    for label, name in enumerate(classes):
        for group in range(1, 13):
            path = f"{name}/v_{name}_g{group:02d}_c01.avi"
            write_film(root / "UCF-101" / path, label, None, 100 * label + group, silent=True)
            groups[group % 2 == 0].append(f"{path} {label + 1}")
    groups[True].append("Diving/v_Diving_g25_c07.avi 3")  # A file that is not there.
    for number, tested in ((1, True), (2, False)):
        write(lists / f"trainlist{number:02d}.txt", *groups[not tested])
        write(lists / f"testlist{number:02d}.txt", *(line.split()[0] for line in groups[tested]))
    return ["ucf101", f"--videos={root / 'UCF-101'}", f"--annotations={lists}"]


def make_esc50(root: Path) -> list[str]:
    """Four classes by pitch, in five folds of two sounds each."""
    release, rows = root / "ESC-50-master", []
    for fold in range(1, 6):
        for target, category in enumerate(("dog", "rooster", "pig", "cow")):
            for take in "AB":
                name = f"{fold}-{1000 * fold + target}-{take}-{target}.wav"
                write_wav(release / "audio" / name, target, 100 * fold + 10 * target + ord(take))
                rows.append(f"{name},{fold},{target},{category},False,{1000 * fold + target},{take}")
    write(release / "meta" / "esc50.csv", "filename,fold,target,category,esc10,src_file,take", *rows)
    return ["esc50", f"--videos={release}"]


def make_kinetics_sounds(root: Path, train: int = 8, val: int = 4) -> list[str]:
    """Four classes, each a pair of color and pitch of which either alone leaves two; one tested video has no sound."""

    def film(path: Path, label: int, number: int) -> None:
        silent = (label, number) == (0, train + val - 1)
        write_film(path, label // 2, label % 2, 1000 * label + number, silent)

    return write_kinetics_sounds(root, film, train, val)


def write_kinetics_sounds(root: Path, film: Callable[[Path, int, int], None], train: int, val: int) -> list[str]:
    """Writes the tree of a `train` and a `val` split with so many videos of each class, one more of which is missing.

    Args:
      root: of the tree.
      film: writes the video of that path, label and number within its class.
      train: videos of each class.
      val: the same.
    """
    rows: dict[str, list[str]] = {"train": [], "val": []}
    for label, name in enumerate(CLASSES):
        for number in range(train + val):
            split = "train" if number < train else "val"
            youtube_id = f"ks_{label}_{number:05d}"
            film(root / "videos" / name / f"{youtube_id}_000000_000010.mp4", label, number)
            rows[split].append(f"{name},{youtube_id},0,10,{split}")
    rows["val"].append("tickling,gone_56789a,0,10,val")
    for split, lines in rows.items():
        write(root / f"{split}.csv", "label,youtube_id,time_start,time_end,split", *lines)
    classes = write(root / "classes.txt", *CLASSES)
    annotations = [f"--annotations={root / name}" for name in ("train.csv", "val.csv")]
    return ["kinetics_sounds", f"--videos={root / 'videos'}", *annotations, f"--classes={classes}"]


def make_charades(root: Path) -> list[str]:
    """Three actions: a red square is seen, a low tone is heard, a high tone is heard; any or none of them."""
    header = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length"
    folder, random = root / "Charades", np.random.default_rng(0)
    for split, count in (("train", 32), ("test", 16)):
        rows = []
        for number in range(count):
            red, pitch = random.random() < 0.5, int(random.integers(0, 3))
            name = f"{split.upper()[1]}{number:04d}"
            write_film(root / "videos" / f"{name}.mp4", 0 if red else 2, (None, 0, 3)[pitch], number + len(split) * 100)
            codes = ["c000"] * red + ["c001"] * (pitch == 1) + ["c002"] * (pitch == 2)
            actions = ";".join(f"{code} 0.00 2.00" for code in codes)
            rows.append(f'{name},HR43,Kitchen,6,7,Yes,"A person, cooking.","food;stove","One",{actions},2.00')
        write(folder / f"Charades_v1_{split}.csv", header, *rows)
    write(folder / "Charades_v1_classes.txt", "c000 Seeing red", "c001 Humming low", "c002 Whistling high")
    return ["charades", f"--videos={root / 'videos'}", f"--annotations={folder}"]

"""The demo's videos: classes, seeds, the tie between what is seen and what is heard, and the files."""

import runpy
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from avshare_jax.data import demo, media


@pytest.fixture(scope="module")
def spectrogram_frame():
    """Seconds between two rows of the demo's spectrograms."""
    frontend = runpy.run_path(str(Path(__file__).parents[2] / "configs" / "pretrain.py"))["get_config"](
        "demo"
    ).data.frontend
    return frontend.hop_length / frontend.sample_rate


@pytest.fixture(scope="module")
def video():
    return demo.render_video((0, 0, 0), 0)


def test_neither_shape_nor_timbre_gives_the_class_away():
    assert len(set(demo.CLASSES)) == len(demo.CLASSES)
    for part, names in enumerate((demo.SHAPES, demo.TIMBRES)):
        counts = Counter(pair[part] for pair in demo.CLASSES)
        assert set(counts) == set(range(len(names)))
        assert len(set(counts.values())) == 1  # Every shape has as many timbres as any other, and the reverse.
        assert min(counts.values()) >= 2


def test_class_names_say_shape_and_timbre():
    names = [demo.class_name(index) for index in range(len(demo.CLASSES))]
    assert len(set(names)) == len(names)
    for name, (shape, timbre) in zip(names, demo.CLASSES, strict=True):
        assert name.split("_") == [demo.SHAPES[shape], demo.TIMBRES[timbre]]


def test_rendered_arrays(video):
    frames, waveform = video
    assert frames.shape == (demo.SECONDS * demo.FPS, demo.PIXELS, demo.PIXELS, 3)
    assert frames.dtype == np.uint8
    assert waveform.shape == (demo.SECONDS * demo.SAMPLE_RATE,)
    assert waveform.dtype == np.float32
    assert 0.01 < np.abs(waveform).max() <= 1


def test_video_is_a_function_of_its_seed(video):
    for one, other in zip(demo.render_video((0, 0, 0), 0), video, strict=True):
        np.testing.assert_array_equal(one, other)
    for seed in ((0, 0, 1), (0, 1, 0), (1, 0, 0)):
        for one, other in zip(demo.render_video(seed, 0), video, strict=True):
            assert (one != other).mean() > 0.5


def test_no_two_videos_share_a_seed(tmp_path):
    counts = {split: 5 * len(demo.CLASSES) for split in demo.SPLITS}
    jobs = [job for seed in (0, 1) for job in demo.missing_videos(tmp_path, counts, seed)]
    draws = {np.random.default_rng(seed).bytes(16) for _, seed, _ in jobs}
    assert len(draws) == len(jobs) == 2 * sum(counts.values())


def test_classes_take_turns_in_every_split(tmp_path):
    counts = {split: 3 * len(demo.CLASSES) for split in demo.SPLITS}
    jobs = list(demo.missing_videos(tmp_path, counts, 0))
    assert len({path for path, _, _ in jobs}) == len(jobs)
    folders = Counter(path.relative_to(tmp_path).parent.parts for path, _, _ in jobs)
    expected = {(split, demo.class_name(index)): 3 for split in demo.SPLITS for index in range(len(demo.CLASSES))}
    assert folders == expected
    assert all(path.parent.name == demo.class_name(class_index) for path, _, class_index in jobs)


def wall_contacts(centers, radius):
    """Times at which the object touches a wall, from its places (N, 2) in successive frames alone.

    Where it bounced between two frames, its distances from the wall before and after add up to one frame's way.
    """
    times = []
    for places in centers.T:
        way = np.abs(np.diff(places)).max()
        for wall in (radius, demo.PIXELS - radius):
            distance = np.abs(places - wall)
            bounced = np.isclose(distance[:-1] + distance[1:], way, rtol=1e-4) & (distance[:-1] < way)
            bounced &= np.abs(np.diff(places)) < way * (1 - 1e-4)
            times += [(index + distance[index] / way) / demo.FPS for index in np.flatnonzero(bounced)]
    return sorted(times)


def sound_onset(shot, start):
    """Seconds after which one shot's sound (SAMPLE_RATE,) first exceeds the noise that it holds before `start`."""
    level = np.sqrt(np.convolve(shot.astype(np.float64) ** 2, np.ones(64) / 64, mode="valid"))
    noise = np.sqrt(np.mean(shot[: round((start - 0.02) * demo.SAMPLE_RATE)] ** 2))
    return (np.argmax(level > 2 * noise) + 64) / demo.SAMPLE_RATE


@pytest.fixture
def shots(monkeypatch):
    """Trajectory, impacts and radius of each shot of four videos of different classes, and its sound."""
    shots, bounce = [], demo.bounce

    def recorded(rng, radius):
        shots.append((*bounce(rng, radius), radius))
        return shots[-1][:2]

    monkeypatch.setattr(demo, "bounce", recorded)
    waveforms = [demo.render_video((2, 0, index), index)[1] for index in range(4)]
    assert len(shots) == 4 * demo.SECONDS
    sounds = np.concatenate(waveforms).reshape(len(shots), demo.SAMPLE_RATE)
    return [(*shot, sound) for shot, sound in zip(shots, sounds, strict=True)]


def test_object_stays_within_the_walls(shots):
    for centers, _, radius, _ in shots:
        assert centers.shape == (demo.FPS, 2)
        assert centers.min() >= radius - 1e-6
        assert centers.max() <= demo.PIXELS - radius + 1e-6


def test_impacts_are_the_visible_contacts_with_the_walls(shots):
    for centers, impacts, radius, _ in shots:
        assert impacts
        assert all(0 < impact.strength <= 1 for impact in impacts)
        seen = [impact.time for impact in impacts if impact.time < 1 - 1 / demo.FPS]
        np.testing.assert_allclose(wall_contacts(centers, radius), sorted(seen), atol=1e-6)


def test_contacts_are_heard_within_one_frame_of_the_spectrogram(shots, spectrogram_frame):
    for centers, _, radius, sound in shots:
        contact = wall_contacts(centers, radius)[0]
        assert sound_onset(sound, contact) == pytest.approx(contact, abs=spectrogram_frame)


def test_harder_impacts_are_louder():
    levels = []
    for strength in (0.1, 0.5, 1.0):
        impacts = [demo.Impact(0.5, strength)]
        levels.append(np.std(demo.synthesize(np.random.default_rng(0), demo.TIMBRES[0], 440.0, impacts)))
    assert levels[0] < levels[1] < levels[2]


def test_larger_objects_sound_lower(monkeypatch):
    drawn, draw_shot, synthesize = [], demo.draw_shot, demo.synthesize

    def recorded_shot(rng, shape, radius, centers):
        drawn.append(radius)
        return draw_shot(rng, shape, radius, centers)

    def recorded_sound(rng, timbre, pitch, impacts):
        drawn.append(pitch)
        return synthesize(rng, timbre, pitch, impacts)

    monkeypatch.setattr(demo, "draw_shot", recorded_shot)
    monkeypatch.setattr(demo, "synthesize", recorded_sound)
    for index in range(5):
        demo.render_video((3, 0, index), index)
    *radii, pitches = np.reshape(drawn, (5, demo.SECONDS + 1)).T
    assert all((radius == radii[0]).all() for radius in radii)
    np.testing.assert_array_equal(np.argsort(radii[0]), np.argsort(-pitches))


def test_every_shape_looks_and_every_timbre_sounds_different():
    pictures = []
    for shape in demo.SHAPES:
        frame = np.zeros((demo.PIXELS, demo.PIXELS, 3), np.uint8)
        demo.draw_object(frame, shape, np.full(2, demo.PIXELS / 2), demo.PIXELS / 5, np.full(3, 255.0))
        pictures.append(frame[..., 0] / 255)
    areas = [picture.sum() for picture in pictures]
    assert max(areas) < 2 * min(areas)
    time = np.arange(round(0.1 * demo.SAMPLE_RATE)) / demo.SAMPLE_RATE
    spectra = [np.abs(np.fft.rfft(demo.tone(timbre, 300.0, time, tilt=1.0))) for timbre in demo.TIMBRES]
    for examples in (pictures, spectra):
        flat = [example.ravel() / np.linalg.norm(example) for example in examples]
        alike = np.array(flat) @ np.array(flat).T
        assert alike[~np.eye(len(flat), dtype=bool)].max() < 0.99


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A directory with two training videos and a test video, and the progress that was reported."""
    directory, progress = tmp_path_factory.mktemp("videos"), []
    demo.write_demo_videos(directory, {"train": 2, "test": 1}, 5, 1, lambda *counts: progress.append(counts))
    return directory, progress


def test_files_are_written_once(files):
    directory, progress = files
    assert progress == [(1, 3), (2, 3), (3, 3)]
    names = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    assert names == {
        f"train/{demo.class_name(0)}/train_00000.mp4",
        f"train/{demo.class_name(1)}/train_00001.mp4",
        f"test/{demo.class_name(0)}/test_00000.mp4",
    }
    assert not list(demo.missing_videos(directory, {"train": 2, "test": 1}, 5))
    (third,) = demo.missing_videos(directory, {"train": 3, "test": 1}, 5)
    assert third[0].name == "train_00002.mp4"


def test_file_holds_both_streams_in_step(files, spectrogram_frame):
    path = files[0] / "train" / demo.class_name(1) / "train_00001.mp4"
    with av.open(path) as container:
        assert len(container.streams.video) == len(container.streams.audio) == 1
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(path) as container:
        decoded = list(container.decode(audio=0))
    assert {frame.sample_rate for frame in decoded} == {demo.SAMPLE_RATE}
    expected_frames, expected_sound = demo.render_video((5, demo.SPLITS.index("train"), 1), 1)
    assert np.shape(frames) == expected_frames.shape
    assert np.abs(np.float32(frames) - expected_frames).mean() < 8
    sound = media.read_audio(path, demo.SAMPLE_RATE)
    assert len(sound) == pytest.approx(len(expected_sound), abs=spectrogram_frame * demo.SAMPLE_RATE)
    reach = round(spectrogram_frame * demo.SAMPLE_RATE)
    middle = expected_sound[reach : len(sound) - reach]
    likeness = [np.corrcoef(sound[lag : lag + len(middle)], middle)[0, 1] for lag in range(0, 2 * reach + 1, 5)]
    assert abs(5 * np.argmax(likeness) - reach) <= 5
    assert max(likeness) > 0.9


def test_encoded_files_are_a_function_of_what_is_encoded(tmp_path):
    videos = [demo.render_video((0, 1, index), index) for index in range(3)]
    encoded = []
    for _ in range(4):
        for index, video in enumerate(videos):
            demo.encode_video(tmp_path / f"{index}.mp4", *video)
        encoded.append([(tmp_path / f"{index}.mp4").read_bytes() for index in range(3)])
    assert all(again == encoded[0] for again in encoded)

"""Features: the network's own outputs, of every clip once, whatever a video lacks; files that survive interruptions."""

import dataclasses
import errno
import gc
import json
import os
import weakref
from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pyarrow.parquet
import pytest
import simplejpeg
from ml_collections import ConfigDict

from avshare_jax import features, models
from avshare_jax.data.demo import encode_video
from avshare_jax.data.elements import empty_record, presence_flags
from avshare_jax.data.errors import DatasetError
from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.records import Contents, write_dataset
from avshare_jax.data.sources.listing import Video
from avshare_jax.evaluation.encoder import Encoder, _Video
from avshare_jax.evaluation.features import pool_clips
from avshare_jax.interop.workdirs import read_network, write_imported
from avshare_jax.settings import UserError, load_config_file
from tests.evaluation.test_evaluate import MICROSCOPIC

FRONTEND = FrontEnd(fps=8.0, short_side=16, sample_rate=8_000, n_fft=200, hop_length=100, mels=8)
CLIPS = {
    "num_clips": 3,
    "frames_per_clip": 2,
    "frame_stride": 2,  # clips of half a second
    "mel_frames": 40,
    "min_short_side": 12,
    "max_short_side": 16,
    "crop": 12,
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, random_variables):
    """An imported network with random weights."""
    recipe = load_config_file("configs/pretrain.py:demo")
    recipe.unlock()
    recipe.model = ConfigDict(MICROSCOPIC)
    recipe.data.update(**CLIPS, frontend=ConfigDict(dataclasses.asdict(FRONTEND)))
    batch = {"frames": np.zeros((1, 3, 2, 12, 12, 3), np.uint8), "log_mel": np.zeros((1, 3, 40, 8), np.float32)}
    network = models.build(recipe.model)
    variables = random_variables(lambda key: network.init(key, batch, train=False))
    path = tmp_path_factory.mktemp("run")
    write_imported(str(path), recipe, recipe.model, variables, {})
    return path


@pytest.fixture(scope="module")
def encoder(workdir):
    return features.load(workdir, batch_size=2)


def make_record(seed, clips, has_video=True, has_audio=True):
    """A record of some clips of half a second."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (4 * clips, 16, 24, 3), np.uint8)
    return {
        "video_id": f"video {seed}",
        "source_id": f"video {seed}",
        "frames": [simplejpeg.encode_jpeg(image) for image in images] if has_video else [],
        "log_mel": random.normal(size=(40 * clips if has_audio else 0, 8)).astype(np.float32),
        "has_video": has_video,
        "has_audio": has_audio,
        "labels": (("dog", "cat")[seed % 2],),
    }


def cut_first(encoder, record):
    """The first window of a record."""
    return encoder._cut(record, _Video(presence_flags(record), 3, 1), 0)


def test_features_are_the_networks_outputs(encoder, workdir):
    record = make_record(0, clips=3)
    (found,) = encoder.encode_records([record])
    config, _, variables = read_network(str(workdir))
    window = cut_first(encoder, record)
    outputs = jax.jit(partial(models.build(config.model).apply, train=False))(
        variables, {name: window[name][None] for name in ("frames", "log_mel")}
    )
    pooled = jax.device_get(pool_clips(outputs))  # as the probes of evaluation see them
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    for layer, modalities in pooled.items():
        for modality, expected in modalities.items():
            close(found[f"{layer}_{modality}"], expected[0])
    close(found["cnn_visual_clips"], outputs["visual_features"][0])
    close(found["unimodal_audio_bos"], outputs["audio_tokens"][0, 0])
    close(found["multimodal_audio_bos"], outputs["multimodal_tokens"][0, 4])
    close(found["multimodal_audio_clips"], outputs["multimodal_tokens"][0, 5:])
    assert found["clip_seconds"].tolist() == [0, 0.5, 1]
    assert {value.dtype for value in found.values()} == {np.dtype("float32")}
    widths = {name: value.shape[-1] for name, value in found.items() if f"{name}_clips" in found}
    assert widths == encoder.widths()


def test_long_videos_are_covered_by_windows(encoder):
    """Seven clips: windows 0-2, 3-5 and 4-6, of which the last gives clip 6 only."""
    record = make_record(1, clips=7)
    (found,) = encoder.encode_records([record])
    assert found["unimodal_visual_clips"].shape == (7, 8)
    for start, first, last in ((0, 0, 3), (3, 3, 6), (4, 6, 7)):
        part = record | {"frames": record["frames"][4 * start :], "log_mel": record["log_mel"][40 * start :]}
        part = part | {"frames": part["frames"][:12], "log_mel": part["log_mel"][:120]}
        (alone,) = encoder.encode_records([part])
        for name in ("cnn_audio_clips", "unimodal_visual_clips", "multimodal_audio_clips"):
            expected = alone[name][first - start : last - start]
            np.testing.assert_allclose(found[name][first:last], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["unimodal_audio"], found["unimodal_audio_clips"].mean(0), rtol=1e-5, atol=1e-6)


def test_what_is_missing_is_not_there(encoder):
    records = [make_record(2, 3), make_record(2, 3, has_audio=False), make_record(2, 3, has_video=False)]
    both, silent, sound = encoder.encode_records(records)
    assert {name.split("_")[0] for name in silent} == {"clip", "cnn", "unimodal"}
    assert not any("audio" in name for name in silent) and not any("visual" in name for name in sound)
    for found, modality in ((silent, "visual"), (sound, "audio")):
        for name in (f"cnn_{modality}_clips", f"unimodal_{modality}_bos"):
            np.testing.assert_allclose(found[name], both[name], rtol=1e-5, atol=1e-6)


def test_what_there_is_of_a_modality_depends_on_the_fusion():
    record = make_record(0, 1, has_audio=False)
    for fusion, expected in (("early", True), ("mid", False)):
        encoder = Encoder(ConfigDict({"model": {"fusion": fusion}}), 0, FRONTEND, None, 1, {}, None)
        assert encoder.is_there("multimodal_visual", record) == expected
        assert not encoder.is_there("multimodal_audio", record) and encoder.is_there("cnn_visual", record)


def test_short_videos_have_the_clips_that_they_have(encoder):
    short = make_record(3, 1)
    (found,) = encoder.encode_records([short])
    assert found["unimodal_visual_clips"].shape == (1, 8)
    (alone,) = encoder.encode_records([short | {"frames": short["frames"][:1], "log_mel": short["log_mel"][:2]}])
    assert alone["cnn_audio_clips"].shape[0] == 1


def test_a_damaged_frame_is_a_sentence_and_spoils_no_other_video(encoder):
    damaged = make_record(4, 3)
    damaged["frames"][2] = b"no jpeg"
    found, other = encoder.encode_records([damaged, make_record(5, 3)])
    assert "frame 2 is damaged" in found
    (alone,) = encoder.encode_records([make_record(5, 3)])
    np.testing.assert_allclose(other["cnn_visual"], alone["cnn_visual"], rtol=1e-5, atol=1e-6)


def test_records_are_not_kept(encoder):
    """When a record is asked for, at most the one before it is still there, in a part of the command as well."""

    class Record(dict):
        pass

    alive = weakref.WeakSet()
    Record.__hash__ = object.__hash__

    def items():
        for number in range(6):
            gc.collect()
            assert len(alive) <= 2
            alive.add(record := Record(make_record(7, 3), label=0))
            yield f"video {number}", record, ""
            del record

    encoded, skipped = features.encode_part(items(), encoder)
    assert len(encoded) == 6 and not skipped and not alive
    assert len({video.features["cnn_audio"].tobytes() for video in encoded}) == 1


def test_a_part_is_full_with_enough_clips(encoder, monkeypatch):
    """Clips of videos that cannot be used do not count, those of a video are never divided."""
    monkeypatch.setattr(features, "CLIPS_PER_PART", 6)
    records = [make_record(seed, clips) | {"label": -1} for seed, clips in ((0, 3), (1, 2), (2, 9), (3, 1))]
    items = iter([("none", None, "why"), *((f"video {seed}", record, "") for seed, record in enumerate(records))])
    parts = list(iter(lambda: features.encode_part(items, encoder), ([], [])))
    assert [[len(video.features["clip_seconds"]) for video in part] for part, _ in parts] == [[3, 2, 9], [1]]
    assert [skipped for _, skipped in parts] == [[("none", "why")], []]


def test_a_diverged_network_is_a_sentence(encoder):
    record = make_record(0, 3)
    record["log_mel"][5] = np.nan
    with pytest.raises(UserError, match="not finite"):
        list(encoder.encode_records([record]))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Seven videos; 1 has no sound, 2 no image, 3 a damaged frame, 4 is short."""
    records = [make_record(number, 3) for number in range(7)]
    records[1], records[2] = make_record(1, 5, has_audio=False), make_record(2, 3, has_video=False)
    records[3]["frames"][2] = b"no jpeg"
    records[4] = make_record(4, 1)
    directory = tmp_path_factory.mktemp("data")
    write_dataset("mine", directory, {"test": records}, Contents(FRONTEND, 90, ("cat", "dog")))
    return directory


@pytest.fixture
def command(monkeypatch, encoder, data_dir, workdir):
    """Runs the command on the data set, in parts of two videos; the network is loaded once for all tests."""
    monkeypatch.setattr(features, "load", lambda checkpoint, batch_size: encoder)
    monkeypatch.setattr(features, "VIDEOS_PER_PART", 2)

    def run(output, *more):
        features.main(
            [f"--checkpoint={workdir}", "--input=mine", f"--data_dir={data_dir}", f"--output={output}", *more]
        )

    return run


def test_both_kinds_of_files_hold_the_same(command, tmp_path, encoder, capsys):
    command(tmp_path / "a.npz")
    command(tmp_path / "a.parquet")
    said = capsys.readouterr().out
    assert said.count("6 videos (1 without sound, 1 without image), 18 clips; skipped 1.") == 2
    assert "video 3: frame 2 is damaged" in said
    arrays = dict(np.load(tmp_path / "a.npz", allow_pickle=False))
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    about = json.loads(str(arrays["about"]))
    assert about == json.loads(table.schema.metadata[b"about"])
    assert [video["video_id"] for video in about["skipped"]] == ["video 3"]
    rows = {row["video_id"]: row for row in table.to_pylist()}
    assert list(rows) == arrays["video_id"].tolist()
    for number, (name, row) in enumerate(rows.items()):
        seed = int(name.split()[1])
        assert row["labels"] == [("dog", "cat")[seed % 2]]
        assert arrays["class_names"][arrays["labels"][number] > 0].tolist() == row["labels"]
        clips = arrays["clip_video"] == number
        assert clips.sum() == arrays["num_clips"][number] == {1: 5, 4: 1}.get(seed, 3)
        assert arrays["clip_seconds"][clips].tolist() == row["clip_seconds"]
        lacking = {1: ("audio", "multimodal"), 2: ("visual", "multimodal")}.get(seed, ())
        for layer in encoder.widths():
            for column in (layer, f"{layer}_clips", *([] if layer.startswith("cnn") else [f"{layer}_bos"])):
                found = arrays[column][clips if column.endswith("_clips") else number]
                if any(what in column for what in lacking):
                    assert np.isnan(found).all() and row[column] is None
                else:
                    np.testing.assert_array_equal(found, np.array(row[column], np.float32))
        if lacking:
            assert row["note"] == f"It has no {'sound' if lacking[0] == 'audio' else 'image'}."
    (alone,) = encoder.encode_records([make_record(6, 3)])
    np.testing.assert_allclose(rows["video 6"]["unimodal_audio"], alone["unimodal_audio"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_an_interrupted_command_goes_on(command, tmp_path, monkeypatch, encoder, suffix, capsys):
    """The second part is not finished when the process ends; nothing of it but a piece of a file is left."""
    command(tmp_path / f"whole.{suffix}")
    calls = []

    def interrupted(self, records):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(self, records)

    encode = Encoder.encode_records
    monkeypatch.setattr(Encoder, "encode_records", interrupted)
    with pytest.raises(SystemExit, match="Give the same command again"):
        command(tmp_path / f"b.{suffix}")
    unfinished = tmp_path / f".b.{suffix}.unfinished"
    assert sorted(path.name for path in unfinished.iterdir()) == ["part-00000.npz", "settings.json"]
    (unfinished / ".part-00001.npz.0123.partial").write_bytes(b"PK")
    (tmp_path / f".b.{suffix}.0123.partial").write_bytes(b"PK")
    with pytest.raises(SystemExit, match=r"batch_size is 2 there and 3 here.*\.unfinished to begin anew"):
        monkeypatch.setattr(features, "load", lambda *_: dataclasses.replace(encoder, batch_size=3))
        command(tmp_path / f"b.{suffix}")
    monkeypatch.setattr(features, "load", lambda *_: encoder)
    capsys.readouterr()
    command(tmp_path / f"b.{suffix}")
    assert "Going on after 2 of 7 videos." in capsys.readouterr().out
    assert (tmp_path / f"b.{suffix}").read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"b.{suffix}", f"whole.{suffix}"]
    command(tmp_path / f"b.{suffix}")
    assert "holds these features already" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_a_part_may_have_no_video(command, tmp_path, monkeypatch, suffix):
    """Videos 0 and 1, the first part, are both damaged."""
    encode = Encoder.encode_records
    monkeypatch.setattr(
        Encoder,
        "encode_records",
        lambda self, records: (
            "it is damaged"
            if b"0" in record["video_id"] or b"1" in record["video_id"]
            else next(encode(self, [record]))
            for record in records
        ),
    )
    command(path := tmp_path / f"a.{suffix}")
    if suffix == "npz":
        found = np.load(path)["video_id"].tolist()
    else:
        found = pyarrow.parquet.read_table(path)["video_id"].to_pylist()
    assert found == ["video 2", "video 4", "video 5", "video 6"]


def test_files_of_something_else_stay(command, tmp_path, monkeypatch, encoder):
    command(tmp_path / "a.npz")
    other = dataclasses.replace(encoder, step=5)
    monkeypatch.setattr(features, "load", lambda *_: other)
    with pytest.raises(SystemExit, match="other features: step is 0 there and 5 here.*another --output"):
        command(tmp_path / "a.npz")
    for name in ("b.npz", "b.parquet"):
        (tmp_path / name).write_text("anything")
        with pytest.raises(SystemExit, match=f"{name} is there, and is no file of features"):
            command(tmp_path / name)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--output=a.csv"], r"a.csv must end in .npz or .parquet"),
        (["--input=no_such"], "no_such is neither a folder or file nor a data set in .*There is no data set"),
        (["--input=./no such"], "no such is neither a folder or file nor a data set"),
        (["--split=dev"], "has no split 'dev'; it has test"),
        (["--batch_size=0"], "batch_size=0 is too small"),
        (["--time_limit=0"], "time_limit=0 is too small"),
    ],
)
def test_mistakes_are_sentences(command, tmp_path, options, words):
    with pytest.raises(SystemExit, match=words):
        command(tmp_path / "a.npz", *options)
    assert not list(tmp_path.iterdir())


def test_mistakes_about_runs_and_folders_are_sentences(tmp_path, data_dir, workdir, monkeypatch, encoder):
    output = f"--output={tmp_path / 'a.npz'}"
    with pytest.raises(SystemExit, match="no run in .*nowhere"):
        features.main([f"--checkpoint={tmp_path / 'nowhere'}", "--input=mine", f"--data_dir={data_dir}", output])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="There is no media file in"):
        features.main([f"--checkpoint={workdir}", f"--input={tmp_path / 'empty'}", output])
    other = dataclasses.replace(encoder, config=ConfigDict({"data": {"frontend": {"fps": 25.0}}}))
    monkeypatch.setattr(features, "load", lambda *_: other)
    with pytest.raises(SystemExit, match=r"fps is 8.0 in the data set and 25.0 in the config"):
        features.main([f"--checkpoint={workdir}", "--input=mine", f"--data_dir={data_dir}", output])


def test_what_cannot_be_written_and_what_cannot_be_read_are_told_apart(command, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with monkeypatch.context() as patched, pytest.raises(SystemExit, match=r"file cannot be written \(File exists\)"):
        patched.setattr(features, "load", None)  # No network is loaded before that is said.
        command(tmp_path / "file" / "a.npz")

    def read(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/some/shard")
        yield

    monkeypatch.setattr(features, "read_records", read)
    with pytest.raises(SystemExit, match=r"^error: /some/shard cannot be used: Permission denied\."):
        command(tmp_path / "a.npz")


def test_files_are_the_same_by_name_size_and_time(tmp_path):
    (path := tmp_path / "a.mp4").write_bytes(b"one")
    videos = features.find_files(tmp_path)
    os.utime(path, ns=(5, 7))
    before = features.digest(videos)
    assert features.digest(videos) == before
    path.write_bytes(b"two")
    os.utime(path, ns=(5, 8))
    assert features.digest(videos) != before
    os.utime(path, ns=(6, 7))
    assert features.digest(videos) == before
    path.unlink()
    assert features.digest(videos) != before


def test_files_have_ids_of_their_own_that_can_be_printed(tmp_path):
    names = (b"\xb9\xb7/1.mp4", b"\xd3\xe3/1.mp4", b"a\n\x1b[31m.mka", b"cafe\xcc\x81.mp4", b"song.mid")
    for name in names:
        path = tmp_path / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.touch()
    videos = features.find_files(tmp_path)
    expected = [r"a\u000a\u001b[31m.mka", "caf\u00e9.mp4", r"\xb9\xb7/1.mp4", r"\xd3\xe3/1.mp4", "song.mid"]
    assert [video.video_id for video in videos] == expected
    assert all(os.path.isfile(video.path) for video in videos)
    (tmp_path / "caf\u00e9.mp4").touch()
    with pytest.raises(DatasetError, match="Two files in .* would have the same name 'caf\u00e9.mp4'"):
        features.find_files(tmp_path)


def test_media_that_are_not_taken_are_skipped_with_a_reason(tmp_path, encoder):
    (tmp_path / "song.mid").touch()
    options = SimpleNamespace(workers=1, max_seconds=10.0, time_limit=10.0, memory_limit=None)
    [(name, record, reason)] = features.read_files([Video("song.mid", f"{tmp_path}/song.mid")], encoder, options)
    assert (name, record) == ("song.mid", None) and reason.startswith("Files that end in .mid are not taken")


def write_media(path, seconds, seed, sound=True):
    random = np.random.default_rng(seed)
    frames = random.integers(0, 256, (round(16 * seconds), 32, 48, 3), np.uint8)
    waveform = 0.1 * random.normal(size=round(16_000 * seconds)) * sound
    encode_video(path, frames, waveform.astype(np.float32))


@pytest.mark.slow
def test_a_folder_of_media_files(tmp_path, monkeypatch, encoder, workdir, capsys):
    folder = tmp_path / "my videos"
    (folder / "more").mkdir(parents=True)
    write_media(folder / "a.mp4", 2.5, 0)
    write_media(folder / "more" / "silent ü.mp4", 0.4, 1, sound=False)
    (folder / "more" / "bad.mp4").write_bytes(b"no video")
    (folder / "notes.txt").write_text("no media")
    monkeypatch.setattr(features, "load", lambda *_: encoder)
    output = tmp_path / "new" / "a.npz"
    features.main([f"--checkpoint={workdir}", f"--input={folder}", f"--output={output}", "--workers=1"])
    said = capsys.readouterr().out
    assert "2 videos (1 without sound, 0 without image), 6 clips; skipped 1." in said
    assert "more/bad.mp4: The file cannot be read" in said
    arrays = np.load(output)
    assert arrays["video_id"].tolist() == ["a.mp4", "more/silent ü.mp4"]
    assert arrays["num_clips"].tolist() == [5, 1] and arrays["seconds"] == pytest.approx([2.5, 0.4], abs=0.13)
    assert arrays["note"][1].startswith("It has no sound") or "silen" in arrays["note"][1]
    assert np.isnan(arrays["cnn_audio"][1]).all() and np.isnan(arrays["multimodal_visual"][1]).all()
    found = encoder.encode(folder / "a.mp4")
    np.testing.assert_allclose(found["multimodal_audio"], arrays["multimodal_audio"][0], rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="bad.mp4 cannot be used. The file cannot be read"):
        encoder.encode(folder / "more" / "bad.mp4")


def test_a_folder_of_nothing_but_bad_files_is_a_sentence(command, tmp_path, monkeypatch, encoder):
    monkeypatch.setattr(Encoder, "encode_records", lambda self, records: ("it is damaged" for _ in records))
    with pytest.raises(
        SystemExit, match="None of the 7 videos can be used:\n  video 0: it is damaged.\n(.*\n)*.* 2 more"
    ):
        command(tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())


def test_an_empty_record_is_black_and_silent(encoder):
    """What is missing is never made of other videos."""
    window = cut_first(encoder, empty_record(encoder.clips))
    assert not window["frames"].any() and len(np.unique(window["log_mel"])) == 1
    assert SimpleNamespace(**window).has_video == np.False_

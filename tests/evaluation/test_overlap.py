"""Which test videos pretraining has seen: by their ids across data sets, by any name within one, never by guessing."""

import json

import numpy as np
import pytest

from avshare_jax.data.dataset import open_dataset
from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.outcomes import MISSING, NO_AUDIO, REJECTED, USED, VIDEOS, Outcome, write_outcomes
from avshare_jax.data.records import Contents, dataset_directory, write_dataset
from avshare_jax.evaluation.overlap import Overlap, count_videos, describe, find_overlap, leave_out
from avshare_jax.settings import UserError, load_config_file

A, B, C, D = "-bcdefghijK", "aBcdefghijk", "ABCDEFGHIJk", "vwxyz-vwXyz"


def prepared(data_dir, name, outcomes):
    """A data set whose records are as empty as they may be, with the outcomes that preparation would list."""
    splits = {}
    for outcome in outcomes:
        if outcome.outcome in (USED, NO_AUDIO):
            record = {"video_id": outcome.video_id, "source_id": outcome.source_id, "frames": [b""], "labels": ()}
            record |= {"log_mel": np.zeros((1, 3), np.float32), "has_video": True, "has_audio": True}
            splits.setdefault(outcome.split, []).append(record)
    frontend = FrontEnd(fps=4.0, short_side=16, sample_rate=1_000, n_fft=100, hop_length=50, mels=3)
    names = {"train1": "only1+both"} if "both" in splits else {}
    write_dataset(name, data_dir, splits, Contents(frontend, 90, ("x", "y", "z"), split_names=names))
    write_outcomes(dataset_directory(data_dir, name) / VIDEOS, outcomes)
    return open_dataset(data_dir, name)


def video(split, source, path="", video_id="", outcome=USED):
    return Outcome(video_id or source, source, split, path, (), outcome)


@pytest.fixture
def kinetics(tmp_path):
    """What Kinetics' own annotations give: the id of a video is that of YouTube's with its times."""
    videos = [
        video("train", one, f"k/{one}_000001_000011.mp4", f"{one}_000001_000011") for one in (A, B, "unseenUNSEE")
    ]
    rejected = [video("train", D, f"k/{D}.mp4", f"{D}_000001_000011", REJECTED)]
    held_out = [video("val", C, f"k/{C}_000001_000011.mp4", f"{C}_000001_000011")]
    return prepared(tmp_path / "there", "kinetics", [*videos, *rejected, *held_out])


@pytest.fixture
def sounds(tmp_path):
    """The same videos cut elsewhere, two known by their files' names only."""
    videos = [
        video("test", A, "s/1.mp4", f"{A}_000050_000060"),
        video("test", f"a/Y{B}_3_13.mp4", f"s/a/Y{B}_3_13.mp4"),
        video("test", f"a/{C}_3_13.mp4", f"s/a/{C}_3_13.mp4"),
        video("test", D, f"s/{D}.mp4"),
        video("test", "a/1.mp4", "s/a/1.mp4", outcome=NO_AUDIO),
        video("train", "unseenUNSEE", "s/2.mp4"),
        video("test", "never", "s/never.mp4", outcome=REJECTED),
        video("", "lost", outcome=MISSING),
    ]
    return prepared(tmp_path / "here", "sounds", videos)


def run_on(tmp_path, *datasets, data_dir="gone", fingerprint=None, run="run", init_from=None):
    """The workdir of a run on data sets; one that started from another has the name of its workdir in its config."""
    workdir = tmp_path / run
    workdir.mkdir()
    name = "+".join(dataset.name for dataset in datasets) or None
    identity = {"name": name, "fingerprint": fingerprint or "+".join(x.fingerprint for x in datasets) or None}
    (workdir / "dataset.json").write_text(json.dumps(identity))
    config = load_config_file("configs/finetune_ucf101.py" if init_from else "configs/pretrain.py:demo")
    with config.ignore_type():
        config.data.update(name=name, data_dir=str(data_dir), train_split="train")
    if init_from:
        config.init_from = str(init_from)
    (workdir / "config.json").write_text(config.to_json())
    return workdir


def test_videos_of_other_data_sets_are_found_by_their_ids(tmp_path, kinetics, sounds):
    """C was not trained on, D was rejected, the fifth has no id."""
    found = find_overlap(run_on(tmp_path, kinetics, data_dir=tmp_path / "there"), sounds, "test")
    assert found.video_ids == {f"{A}_000050_000060", f"a/Y{B}_3_13.mp4"}
    assert (found.num_videos, found.num_pretraining_videos, found.not_compared) == (5, 3, ())
    assert found.num_clean == 2  # C and D; the fifth is silent
    assert found.to_exclude() == found.video_ids
    said = found.to_json(excluded=True)
    assert said["overlapping_videos"] == 2 and said["pretrained_on"] == "kinetics"
    assert describe(said).startswith(
        "2 of the split's 5 videos are, by their ids, among the 3 of pretraining (kinetics)."
    )
    assert "left out" in describe(said) and "--config.exclude_pretraining_videos=True" not in describe(said)
    assert "--config.exclude_pretraining_videos=True" in describe(found.to_json(excluded=False))


def test_mixtures_are_looked_for_beside_the_evaluated_set_too(tmp_path, kinetics, sounds):
    more = prepared(tmp_path / "here", "more", [video("train", D, "m/1.mp4"), video("train", "b/2.mp4", "m/b/2.mp4")])
    found = find_overlap(run_on(tmp_path, kinetics, more, data_dir=tmp_path / "there"), sounds, "test")
    assert found.video_ids == {f"{A}_000050_000060", f"a/Y{B}_3_13.mp4", D}
    assert found.not_compared == (
        "1 of the 2 pretraining videos of more are known by their paths in a folder only, and cannot be compared with "
        "those of another data set.",
    )
    with pytest.raises(UserError, match="is not possible: 1 of the 2 pretraining videos of more"):
        found.to_exclude()


def test_in_one_data_set_any_id_counts(tmp_path):
    """One source has clips in both splits; and splits may share videos, as official ones do."""
    paths = [("only1", "a/1.mp4"), ("both", "a/2.mp4"), ("only2", "a/3.mp4")]
    dataset = prepared(
        tmp_path,
        "mine",
        [
            *(video(split, path, path) for split, path in paths),
            video("only1", "source", "b/1.mp4", "clip1"),
            video("only2", "source", "b/2.mp4", "clip2"),
        ],
    )
    workdir = run_on(tmp_path, dataset, data_dir=tmp_path)
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["train_split"] = "train1"
    (workdir / "config.json").write_text(json.dumps(config))
    assert find_overlap(workdir, dataset, "only2").video_ids == {"clip2"}
    assert find_overlap(workdir, dataset, "both+only2").video_ids == {"clip2", "a/2.mp4"}


@pytest.mark.parametrize("moved", [False, True])
def test_a_data_set_that_is_gone_or_another_is_said(tmp_path, kinetics, sounds, moved):
    options = {"data_dir": tmp_path / "there", "fingerprint": "f00d"} if moved else {}
    found = find_overlap(run_on(tmp_path, kinetics, **options), sounds, "test")
    said = found.to_json(excluded=False)
    assert said["overlapping_videos"] is None and found.video_ids == set()
    assert ("is another" if moved else "it is not, or not whole, in gone") in describe(said)
    with pytest.raises(UserError, match="not possible: The data set kinetics"):
        found.to_exclude()


def test_imported_weights_and_lists_that_are_missing_are_said(tmp_path, sounds):
    workdir = run_on(tmp_path)
    assert "nothing says which videos they have seen" in describe(find_overlap(workdir, sounds, "test").to_json(False))
    (sounds.directory / VIDEOS).unlink()
    (workdir / "dataset.json").write_text(json.dumps({"name": "sounds", "fingerprint": sounds.fingerprint}))
    assert "videos.jsonl is not there" in describe(find_overlap(workdir, sounds, "test").to_json(False))


def test_runs_that_a_run_started_from_count_as_well(tmp_path, kinetics, sounds):
    """Kinetics, then a data set with D, then both again: each video counts once."""
    more = prepared(tmp_path / "here", "more", [video("train", D, "m/1.mp4")])
    first = run_on(tmp_path, kinetics, data_dir=tmp_path / "there", run="first")
    second = run_on(tmp_path, more, run="second", init_from=first)
    options = {"data_dir": tmp_path / "there", "run": "third", "init_from": second}
    found = find_overlap(run_on(tmp_path, kinetics, more, **options), sounds, "test")
    assert (found.num_pretraining_videos, found.not_compared) == (4, ())
    assert found.pretrained_on == "kinetics+more"
    assert found.video_ids == {f"{A}_000050_000060", f"a/Y{B}_3_13.mp4", D}
    assert find_overlap(second, sounds, "test").video_ids == found.video_ids
    assert find_overlap(first, sounds, "test").video_ids == found.video_ids - {D}


@pytest.mark.parametrize(
    ("start", "sentence"),
    [
        ("imported", "The weights were imported, and nothing says"),
        ("nowhere", "which is no longer there"),
        ("run", "where there is now a run that started from it"),
    ],
)
def test_a_chain_whose_start_is_unknown_is_said(tmp_path, kinetics, sounds, start, sentence):
    run_on(tmp_path, run="imported")
    workdir = run_on(tmp_path, kinetics, data_dir=tmp_path / "there", init_from=tmp_path / start)
    found = find_overlap(workdir, sounds, "test")
    assert (found.pretrained_on, len(found.video_ids)) == ("kinetics", 2)
    assert len(found.not_compared) == 1 and sentence in found.not_compared[0]
    with pytest.raises(UserError, match=f"not possible: .*{sentence}"):
        found.to_exclude()


def test_too_few_videos_that_remain_are_a_sentence():
    """Of four videos, two are seen, and one of the others is silent."""
    found = Overlap("k", 9, 4, frozenset({"a", "b"}), num_clean=1)
    assert found.to_exclude() == found.to_exclude(least=1) == {"a", "b"}
    with pytest.raises(UserError, match="of the 4 videos .* has seen 2, the number of others .* is 1, and 2 are"):
        found.to_exclude(least=2)
    with pytest.raises(UserError, match="has seen 2, the number of others .* is 0, and 1 are needed"):
        Overlap("k", 9, 2, frozenset({"a", "b"})).to_exclude()


def test_videos_are_counted(sounds):
    found = count_videos(sounds, {"train": "train", "test": "test"})
    assert found == {
        "num_classes": 3,
        "missing": 1,
        "train": {"split": "train", "records": 1, "without_audio": 0, "without_video": 0, "rejected": 0},
        "test": {"split": "test", "records": 5, "without_audio": 1, "without_video": 0, "rejected": 1},
    }
    (sounds.directory / VIDEOS).unlink()
    found = count_videos(sounds, {"test": "test"})
    assert found["missing"] is None and found["test"]["rejected"] is None and found["test"]["records"] == 5


@pytest.mark.parametrize("batch_size", [1, 3, 4, 20])
def test_batches_are_filled_up_again(batch_size):
    """13 videos in batches of 4, padded with 3 rows; 2 cannot be read, 3 are left out."""
    rows = np.minimum(np.arange(16), 12)
    valid = (np.arange(16) < 13) & ~np.isin(rows, [4, 12])
    batches = [
        {"x": rows[i : i + 4] * 10, "video_id": [f"v{row}" for row in rows[i : i + 4]], "valid": valid[i : i + 4]}
        for i in range(0, 16, 4)
    ]
    found = list(leave_out(batches, frozenset({"v0", "v5", "v6"}), batch_size))
    assert {len(batch["valid"]) for batch in found} == {batch_size}
    kept = [name for batch in found for name, keep in zip(batch["video_id"], batch["valid"], strict=True) if keep]
    assert kept == ["v1", "v2", "v3", "v7", "v8", "v9", "v10", "v11"]
    for batch in found:
        assert [f"v{x // 10}" for x in batch["x"]] == batch["video_id"]
    assert len(found) == -(-8 // batch_size)
    assert not list(leave_out(batches, frozenset({*kept, "v0", "v5", "v6"}), batch_size))

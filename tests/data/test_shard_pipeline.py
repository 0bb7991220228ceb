"""What Beam and the disk raise becomes a sentence."""

import tempfile

import pytest
from apache_beam.runners.portability.prism_runner import PrismRunner

from avshare_jax.data import building, shard_pipeline
from avshare_jax.data.building import build
from avshare_jax.data.dataset import DatasetError
from avshare_jax.data.decoding import SameFailureError, rejected
from avshare_jax.data.outcomes import write_outcomes
from avshare_jax.data.shards import divide
from avshare_jax.data.sources.listing import Listing, Video
from tests.data.test_building import settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--runner=Foo"], "Unexpected pipeline runner: Foo"),
        (["--runner=DirectRunner", "--fooo=3", "--bar", "4"], "unknown option --bar, --fooo."),
        (["--direct_num_workers=two"], "argument --direct_num_workers: invalid int value: 'two'."),
        (["stray"], "unknown option stray."),
    ],
)
def test_what_beam_does_not_know_gets_a_sentence(tmp_path, capfd, options, message):
    with pytest.raises(DatasetError, match="Apache Beam does not run with the options after `--`: ") as caught:
        build(Listing({"train": [Video("a", "/a.mp4")]}), settings(tmp_path), workers=1, beam_options=options)
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir()) and "usage" not in capfd.readouterr().err


def test_what_a_runner_raises_gets_a_sentence(tmp_path, monkeypatch):
    def fail(*arguments):
        raise ValueError("Some words.\n\nNo job endpoint.\n")

    monkeypatch.setattr(building, "run_pipeline", fail)
    options = ["--runner=DirectRunner"]
    with pytest.raises(DatasetError, match="after `--`: No job endpoint.$"):
        build(Listing({"train": [Video("a", "/a.mp4")]}), settings(tmp_path), workers=1, beam_options=options)


def test_shards_of_files_that_failed_without_fault_are_made_again(tmp_path, monkeypatch):
    wanted = settings(tmp_path)
    shards = divide("train", [Video(name, f"/{name}.mp4") for name in "abcd"], wanted)
    blamed = {shard.number: "Decoding failed: RuntimeError: no luck." for shard in shards[:2]}

    def write(shard):
        if shard.number == len(shards) - 1:
            raise SameFailureError(blamed[0])
        shard.path(wanted).parent.mkdir(parents=True, exist_ok=True)
        shard.path(wanted).touch()
        wanted.notes.mkdir(parents=True, exist_ok=True)
        reason = blamed.get(shard.number, "The file is empty.")
        write_outcomes(shard.outcomes(wanted), [rejected(video, "train", reason) for video in shard.videos])

    monkeypatch.setattr(shard_pipeline, "_failures", [])
    monkeypatch.setattr(shard_pipeline.WriteShard, "_write", lambda self, shard: write(shard))
    monkeypatch.setattr(shard_pipeline, "_listeners", [lambda count: None])
    with (
        pytest.raises(DatasetError, match="in a row fail in the same way"),
        shard_pipeline.make_pipeline(1, []) as pipeline,
    ):
        shard_pipeline.run_pipeline(pipeline, shards, wanted)
    assert not any(shard.is_finished(wanted) for shard in shards if shard.number in blamed)


def test_workers_elsewhere_raise_why_a_shard_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    wanted = settings(tmp_path / "file")
    [shard] = divide("train", [Video("a", "/a.mp4")], wanted)
    with pytest.raises(DatasetError, match="cannot be written: .* Finished shards are kept"):
        list(shard_pipeline.WriteShard(wanted).process(shard))
    monkeypatch.setattr(shard_pipeline, "_listeners", [lambda count: None])  # As in the process that builds.
    monkeypatch.setattr(shard_pipeline, "_failures", [])
    assert list(shard_pipeline.WriteShard(wanted).process(shard)) == []
    assert len(shard_pipeline._failures) == 1


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The machine's folder for temporary files, empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("options", [[], ["--runner=DirectRunner"]])
def test_pipelines_need_no_download_and_leave_no_folders(tmp_path, temporary, monkeypatch, options):
    made, tried, wanted = [], [], settings(tmp_path)
    monkeypatch.setattr(PrismRunner, "run_pipeline", lambda *arguments: tried.append(arguments))
    monkeypatch.setattr(shard_pipeline.WriteShard, "_write", lambda self, shard: made.append(shard.number))
    monkeypatch.setattr(shard_pipeline, "_listeners", [lambda count: None])
    shards = divide("train", [Video(name, f"/{name}.mp4") for name in "abcde"], wanted)
    with shard_pipeline.make_pipeline(2, options) as pipeline:
        assert list(temporary.iterdir())  # Beam's own; else this test would hold nothing.
        shard_pipeline.run_pipeline(pipeline, shards, wanted)
    assert sorted(made) == [shard.number for shard in shards]
    assert not tried and not list(temporary.iterdir())


@pytest.mark.parametrize("ending", [KeyboardInterrupt, DatasetError("The disk is full.")])
def test_preparations_that_end_early_leave_no_folders(tmp_path, temporary, monkeypatch, ending):
    def fail(*arguments):
        raise ending

    monkeypatch.setattr(building, "run_pipeline", fail)
    with pytest.raises((KeyboardInterrupt, DatasetError)):
        build(Listing({"train": [Video("a", "/a.mp4")]}), settings(tmp_path), workers=1)
    assert not list(temporary.iterdir())

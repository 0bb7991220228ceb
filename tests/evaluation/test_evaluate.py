"""The whole evaluation on a microscopic network and made-up videos: files, counts, and sentences for mistakes."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict

from avshare_jax.data.outcomes import MISSING, NO_AUDIO, USED, VIDEOS, Outcome, read_outcomes, write_outcomes
from avshare_jax.evaluation import evaluate as evaluation
from avshare_jax.evaluation import opening
from avshare_jax.evaluation.heldout import init_options
from avshare_jax.evaluation.overlap import Overlap
from avshare_jax.evaluation.summary import NO_HEADS
from avshare_jax.interop.workdirs import write_imported
from avshare_jax.settings import UserError, load_config_file
from avshare_jax.training.checkpoints import Checkpoints, claim_workdir
from avshare_jax.training.pretraining import Pretraining
from avshare_jax.training.step import TrainState

NUM_VIDEOS = {"train": 24, "test": 14}
SILENT = {"test": 5}  # one video without sound
MICROSCOPIC = {
    "visual_cnn": {
        "width": 2,
        "stage_sizes": (1,),
        "temporal_kernels": (1,),
        "stem_kernel": (1, 3, 3),
        "stem_strides": (1, 2, 2),
    },
    "audio_cnn": {"width": 2, "stage_sizes": (1,), "separable_stages": 1, "stem_kernel": 3},
    "hidden": 8,
    "mlp": 8,
    "heads": 2,
    "layers": 1,
    "rank": 4,
    "fusion": "mid",
    "layer_sharing": "all",
    "transformer_sharing": "factorized",
    "orthogonal_map": "expm",
    "dropout": 0.0,
    "positions": 5,
    "dtype": "float32",
}


def make_video(split, index):
    random = np.random.default_rng((split == "test", index))
    return {
        "frames": random.integers(0, 256, (4, 2, 8, 8, 3), np.uint8),
        "log_mel": random.normal(size=(4, 6, 5)).astype(np.float32),
    }


def stack(split, indices):
    videos = [make_video(split, index) for index in indices]
    return {name: np.stack([video[name] for video in videos]) for name in ("frames", "log_mel")}


def fake_eval_batches(dataset, split, data_config, *, batch_size, max_videos, unreadable):
    count = min(NUM_VIDEOS[split], max_videos)
    for start in range(0, count, batch_size):
        rows = np.arange(start, start + batch_size)
        indices = np.minimum(rows, count - 1)
        yield stack(split, indices) | {
            "label": indices.astype(np.int32) % 8,
            "video_id": [f"{split}/{index}" for index in indices],
            "valid": rows < count,
            "has_video": np.ones(batch_size, bool),
            "has_audio": indices != SILENT.get(split),
        }


def fake_train_batches(dataset, data_config, *, seed, batch_size, start_step=0, **_):
    while True:
        yield stack("train", np.arange(batch_size))


@pytest.fixture(scope="module")
def run_config():
    recipe = load_config_file("configs/pretrain.py:demo")
    recipe.unlock()
    recipe.model = ConfigDict(MICROSCOPIC)
    recipe.objectives.num_negatives = 4
    recipe.data.num_clips = 4
    return recipe


@pytest.fixture
def config():
    found = load_config_file("configs/eval.py")
    found.update(batch_size=4, recalibration_batches=2, retrieval_gallery=10, sheet_videos=2)
    found.probe.max_iterations = 20
    return found


@pytest.fixture
def dataset(monkeypatch, class_names, tmp_path):
    fake = SimpleNamespace(
        name="demo",
        fingerprint="f00d",
        class_names=class_names,
        num_videos=NUM_VIDEOS.__getitem__,
        directory=epath.Path(tmp_path) / "data" / "demo" / "1.0.0",
        parts=lambda split: (split,),
    )
    fake.directory.mkdir(parents=True)
    videos = [(split, f"{split}/{index}") for split, count in NUM_VIDEOS.items() for index in range(count)]
    outcomes = [Outcome(name, f"source {name}", split, "", (), USED) for split, name in videos]
    write_outcomes(fake.directory / VIDEOS, [*outcomes, Outcome("lost", "lost", "", "", (), MISSING, "It is gone.")])
    monkeypatch.setattr(opening, "open_dataset", lambda data_dir, name: fake)
    monkeypatch.setattr(opening, "check_frontend", lambda dataset, frontend: None)
    monkeypatch.setattr(evaluation, "eval_batches", fake_eval_batches)
    monkeypatch.setattr(evaluation, "train_batches", fake_train_batches)
    return fake


@pytest.fixture(scope="module")
def variables(run_config):
    init = jax.jit(Pretraining(run_config).init, compiler_options=init_options())
    return init(jax.random.key(run_config.seed), stack("train", range(4)))


@pytest.fixture
def workdir(tmp_path, run_config, variables, dataset):
    """A run with one checkpoint, of step 7: its initial weights plus one percent."""
    claim_workdir(tmp_path, run_config, {"name": dataset.name, "fingerprint": dataset.fingerprint})
    state = TrainState(
        step=jnp.int32(7),
        params=jax.tree.map(lambda x: 1.01 * x, variables["params"]),
        batch_stats=variables["batch_stats"],
        opt_state=(),
        skipped=jnp.int32(0),
        skipped_in_a_row=jnp.int32(0),
    )
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(state)
    (tmp_path / "metrics.jsonl").write_text('{"step": 7, "loss": 3.0}\n')
    return tmp_path


@pytest.mark.slow
def test_evaluation_of_a_run(config, workdir, dataset, capsys):
    found = evaluation.evaluate(config, workdir)
    assert json.loads((workdir / "eval" / "7.json").read_text()) == found
    assert (workdir / "report" / "index.html").exists()
    printed = capsys.readouterr().out
    assert "trained" in printed and "random" in printed and "index.html" in printed

    assert found["dataset"] | {"num_train_videos": 24, "num_test_videos": 13} == found["dataset"]
    assert found["heldout"]["num_videos"] == 12  # Three batches of four are whole.
    assert found["heldout"]["trained"]["mep/chance_of_batch"] == pytest.approx(1 / 16)
    assert found["heldout"]["trained"]["loss"] != found["heldout"]["random"]["loss"]
    assert found["linear_probe"]["num_test_videos"] == 13
    assert set(found["linear_probe"]["targets"]) == {"class", "shape", "timbre"}
    assert found["neighbors"]["num_test_videos"] == 13
    assert (found["dataset"]["num_classes"], found["dataset"]["missing"]) == (8, 1)
    assert found["dataset"]["test"]["records"] == 14
    assert (found["overlap"]["overlapping_videos"], found["overlap"]["test_videos_compared"]) == (0, 14)
    assert found["retrieval"]["num_videos"] == 10
    for network in ("trained", "random"):
        for direction in ("video_to_audio", "audio_to_video"):
            assert found["retrieval"][network][direction]["recall@10"] == 1
    parameters = found["parameters"]
    assert parameters["transformer_unshared"] == 3 * (4 * (8 * 8 + 8) + 2 * (8 * 8 + 8) + 4 * 8)
    assert all(count > 0 for count in parameters.values())


def test_measures_are_written_before_a_report_is_drawn(tmp_path, config, made_up_evaluation, monkeypatch, capsys):
    def fail(*_):
        assert json.loads((tmp_path / "eval" / "900.json").read_text())["step"] == 900
        raise ValueError("Unknown symbol: $5%")

    run = SimpleNamespace(
        **{"step": 900, "workdir": epath.Path(tmp_path), "imported": False, "num_videos": NUM_VIDEOS},
        **{"dataset": SimpleNamespace(name="demo"), "overlap": Overlap("demo", 24, 14), "excluded": frozenset()},
    )
    monkeypatch.setattr(evaluation, "open_run", lambda *_: run)
    monkeypatch.setattr(evaluation, "measure", lambda *_: (made_up_evaluation, None))
    monkeypatch.setattr(evaluation.report.plots, "plot_curves", fail)
    assert evaluation.evaluate(config, tmp_path) is made_up_evaluation
    said = capsys.readouterr().out
    assert said.index("Linear probe, accuracy of the class") < said.index("All measures: ")
    assert said.endswith("The report could not be drawn (ValueError: Unknown symbol: $5%); no measure is lost.\n")
    assert list((tmp_path / "tensorboard" / "eval").iterdir())


def test_videos_of_pretraining_can_be_left_out(config, workdir, dataset):
    """Two of the test videos are from the same sources as training videos."""
    outcomes = list(read_outcomes(dataset.directory / VIDEOS))
    shared = {"test/1": "source train/3", "test/12": "source train/0"}
    write_outcomes(
        dataset.directory / VIDEOS,
        [dataclasses.replace(x, source_id=shared.get(x.video_id, x.source_id)) for x in outcomes],
    )
    run = evaluation.open_run(config, workdir)
    assert run.overlap.video_ids == set(shared) and run.excluded == set()
    config.exclude_pretraining_videos = True
    batches = list(evaluation.open_run(config, workdir).batches("test"))
    assert [len(batch["valid"]) for batch in batches] == [4, 4, 4]
    found = [name for batch in batches for name, valid in zip(batch["video_id"], batch["valid"], strict=True) if valid]
    assert found == [f"test/{index}" for index in range(14) if index not in (1, 5, 12)]  # 5 is without sound
    for batch in batches:
        expected = stack("test", [int(name.removeprefix("test/")) for name in batch["video_id"]])
        np.testing.assert_array_equal(batch["frames"], expected["frames"])


def test_of_videos_left_out_only_those_with_image_and_sound_count(config, workdir, dataset):
    """Nine of fourteen test videos are seen; of the others, one has no sound, so that batches of five cannot be."""
    outcomes = list(read_outcomes(dataset.directory / VIDEOS))
    shared = {f"test/{index}": "source train/3" for index in range(6, 14)} | {"test/0": "source train/3"}
    changed = [dataclasses.replace(x, source_id=shared.get(x.video_id, x.source_id)) for x in outcomes]
    changed = [dataclasses.replace(x, outcome=NO_AUDIO) if x.video_id == "test/5" else x for x in changed]
    write_outcomes(dataset.directory / VIDEOS, changed)
    config.update(exclude_pretraining_videos=True, batch_size=5)
    with pytest.raises(UserError, match="has seen 9, the number of others with image and sound is 4, and 5 are needed"):
        evaluation.open_run(config, workdir)
    config.batch_size = 4
    (batch,) = evaluation.open_run(config, workdir).batches("test")
    assert batch["valid"].all() and batch["video_id"] == [f"test/{index}" for index in (1, 2, 3, 4)]


@pytest.mark.parametrize("silent", [{}, {"test": 5}])
def test_test_batches_are_whole(config, workdir, dataset, monkeypatch, silent):
    """Without silent videos, they are the batches that are read, bit for bit."""
    monkeypatch.setitem(SILENT, "test", silent.get("test"))
    found = list(evaluation.open_run(config, workdir).batches("test"))
    assert [batch["valid"].sum() for batch in found] == ([4, 4, 4, 1] if silent else [4, 4, 4, 2])
    read = list(fake_eval_batches(dataset, "test", None, batch_size=4, max_videos=14, unreadable=None))
    same = [all(np.array_equal(a[name], b[name]) for name in a | b) for a, b in zip(found, read, strict=True)]
    assert same == ([True, False, False, False] if silent else [True] * 4)


def test_another_data_set_than_trained_on_is_a_sentence(config, workdir, dataset):
    dataset.fingerprint = "beef"
    with pytest.raises(UserError, match="f00d.*beef"):
        evaluation.evaluate(config, workdir)


@pytest.fixture
def imported_workdir(tmp_path, run_config, variables, dataset):
    """The same weights, imported: one percent more than initial."""
    network = evaluation.encoder_variables(variables)
    network["params"] = jax.tree.map(lambda x: 1.01 * x, network["params"])
    write_imported(tmp_path, run_config, run_config.model, network, {})
    return tmp_path


@pytest.mark.slow
def test_evaluation_of_imported_weights(config, imported_workdir, capsys):
    config.data.name = "demo"
    found = evaluation.evaluate(config, imported_workdir)
    assert NO_HEADS in capsys.readouterr().out
    assert found["heldout"] is None and found["retrieval"] is None
    assert set(found["feature_retrieval"]) == {"cnn", "unimodal"}
    assert found["feature_retrieval"]["cnn"]["random"]["audio_to_video"]["recall@10"] == 1  # of 10
    assert found["overlap"]["overlapping_videos"] is None and found["overlap"]["pretrained_on"] is None
    accuracies = found["linear_probe"]["targets"]["class"]
    assert accuracies["trained"].keys() == accuracies["random"].keys() == {"cnn", "unimodal", "multimodal"}
    page = (imported_workdir / "report" / "index.html").read_text()
    assert NO_HEADS in page
    assert sorted(path.stem for path in (imported_workdir / "report").glob("*.png")) == ["parameters", "probes"]


def test_imported_weights_are_restored(config, imported_workdir, run_config, variables):
    config.data.name = "demo"
    run = evaluation.open_run(config, imported_workdir)
    assert run.imported
    networks = evaluation.load_networks(run, Pretraining(run.config), 1)
    trained, random = (evaluation.encoder_variables(networks[name]) for name in ("trained", "random"))
    jax.tree.map(np.testing.assert_array_equal, trained["batch_stats"], variables["batch_stats"]["network"])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, 1.01 * b), trained["params"], random["params"])


def test_imported_weights_need_a_data_set(config, imported_workdir):
    with pytest.raises(UserError, match=r"config\.data\.name"):
        evaluation.open_run(config, imported_workdir)


def test_imported_weights_can_be_measured_without_classes(config, imported_workdir, dataset):
    """There is retrieval by features then."""
    config.data.name, dataset.class_names = "demo", ()
    assert evaluation.open_run(config, imported_workdir).dataset is dataset


def test_a_run_can_be_evaluated_on_another_data_set_and_other_clips(config, workdir, dataset):
    dataset.name, dataset.fingerprint = "other", "beef"
    config.data.update(name="other", num_clips=3)
    config.data.frontend.fps = 25.0
    data = evaluation.open_run(config, workdir).config.data
    assert (data.name, data.num_clips, data.frontend.fps) == ("other", 3, 25.0)
    assert (data.eval_split, data.crop, data.frontend.mels) == ("test", 40, 32)  # the run's


def test_more_clips_than_positions_is_a_sentence(config, workdir):
    config.data.num_clips = 5
    with pytest.raises(UserError, match="5 is too many: the network has 5 positions"):
        evaluation.open_run(config, workdir)


def test_a_run_without_checkpoint_is_a_sentence(config, tmp_path, run_config, dataset):
    claim_workdir(tmp_path, run_config, {"name": dataset.name, "fingerprint": dataset.fingerprint})
    with pytest.raises(UserError, match="no checkpoint"):
        evaluation.evaluate(config, tmp_path)


def test_a_folder_without_run_is_a_sentence(config, tmp_path):
    with pytest.raises(UserError, match="no run"):
        evaluation.evaluate(config, tmp_path)

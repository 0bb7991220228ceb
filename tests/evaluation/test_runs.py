"""Watching a training: each checkpoint is evaluated once, whatever happens to the training meanwhile."""

import json
import shutil
import threading

import jax
import numpy as np
import pytest

from avshare_jax.evaluation import runs
from avshare_jax.settings import UserError, load_config_file
from avshare_jax.training import checkpoints, loop, mesh
from tests.training.conftest import LinearTask, StepBatches
from tests.training.conftest import linear_config as linear_config  # a fixture
from tests.transfer import evaluation_config


@pytest.fixture
def train(linear_config, tmp_path):
    def run(bad=(), **changes):
        config = linear_config.copy_and_resolve_references()
        config.update(checkpoints_kept=10, checkpoint_every=2)
        config.update(changes)
        loop.train(
            config,
            tmp_path / "run",
            task=LinearTask(),
            make_batches=StepBatches(bad),
            dataset_identity={"name": "lines", "fingerprint": "1"},
            mesh=mesh.make_mesh(config.mesh),
        )

    return run


class Evaluator:
    """Notes what it is asked for, and writes what evaluation writes."""

    def __init__(self):
        self.steps = []

    def __call__(self, config, workdir, step):
        self.steps.append(step)
        path = runs.evaluation_file(workdir, step)
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")


def test_each_checkpoint_is_evaluated_once_across_restarts_of_both(train, tmp_path, capsys):
    evaluator = Evaluator()
    arguments = (evaluation_config(), tmp_path / "run", evaluator)
    watcher = threading.Thread(target=runs.watch, args=arguments)
    watcher.start()  # Before the run is there.
    with pytest.raises(UserError):  # The training ends early ...
        train(bad=(4, 5, 6))
    assert watcher.is_alive()
    train()  # ... and goes on.
    watcher.join(timeout=60)
    assert not watcher.is_alive()
    assert sorted(evaluator.steps) == [2, 4, 6, 8]
    runs.watch(*arguments)  # Started again, it has nothing to do.
    assert len(evaluator.steps) == 4
    (runs.evaluation_file(tmp_path / "run", 6)).unlink()
    runs.watch(*arguments)
    assert evaluator.steps[4:] == [6]
    said = capsys.readouterr().out
    assert "Waiting for a checkpoint" in said and "last checkpoint is evaluated" in said


def test_a_checkpoint_that_goes_away_or_is_damaged_is_left_out(train, tmp_path, capsys):
    train()
    evaluator = Evaluator()

    def evaluate(config, workdir, step):
        if step == 2:
            shutil.rmtree(workdir / "checkpoints" / "2")
            checkpoints.restore_variables(workdir, 2, {"params": {"weight": jax.ShapeDtypeStruct((3,), np.float32)}})
        if step == 4:
            raise checkpoints.UnusableCheckpointError("The checkpoint of step 4 is damaged.")
        evaluator(config, workdir, step)

    runs.watch(evaluation_config(), tmp_path / "run", evaluate)
    assert evaluator.steps == [6, 8]
    said = capsys.readouterr().out
    assert "step 2 was removed before it was read" in said and "Left out: The checkpoint of step 4" in said


def test_a_last_checkpoint_without_evaluation_is_no_success(train, tmp_path, capsys):
    train()

    def evaluate(config, workdir, step):
        if step == 8:
            raise checkpoints.UnusableCheckpointError("The checkpoint of step 8 is damaged.")

    with pytest.raises(UserError, match="all of its steps, but the checkpoint of its last one has no evaluation"):
        runs.watch(evaluation_config(), tmp_path / "run", evaluate)
    assert "Left out: The checkpoint of step 8" in capsys.readouterr().out


def test_when_a_checkpoint_was_written_is_asked_while_it_goes_away(tmp_path):
    assert runs.written_at(tmp_path, 2) == 0.0
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    assert runs.written_at(tmp_path, 2) > 0.0


@pytest.mark.parametrize("error", [ValueError("a bug"), FileNotFoundError("no report")])
def test_errors_that_are_not_of_restoring_end_it_even_if_the_checkpoint_is_gone(train, tmp_path, error):
    train()

    def evaluate(config, workdir, step):
        shutil.rmtree(workdir / "checkpoints" / str(step))
        raise error

    with pytest.raises(type(error), match=str(error)):
        runs.watch(evaluation_config(), tmp_path / "run", evaluate)


def test_mistakes_end_it(train, tmp_path):
    train()

    def evaluate(config, workdir, step):
        raise UserError("There is no data set.")

    with pytest.raises(UserError, match="no data set"):
        runs.watch(evaluation_config(), tmp_path / "run", evaluate)


def test_measures_become_scalars():
    evaluation = {
        "step": 3,
        "measures": {"both": {"top1": 0.5, "top5": None}},
        "heldout": {"num_videos": 4, "trained": {"loss": 1.0}, "random": {"loss": 2.0}},
    }
    assert dict(runs.scalars(evaluation)) == {
        "measures/both/top1": 0.5,
        "heldout/num_videos": 4.0,
        "heldout/trained/loss": 1.0,
    }


def test_every_measure_of_an_evaluation_is_a_scalar(made_up_evaluation):
    """All numbers in its JSON text, but for those of the random network, ceilings, and what is no measure."""

    def leaves(tree, path):
        if isinstance(tree, dict):
            for name, inner in tree.items():
                yield from leaves(inner, (*path, name))
        elif isinstance(tree, (int, float)):
            yield path, tree

    expected = {}
    for path, value in leaves(json.loads(json.dumps(made_up_evaluation)), ()):
        beside = {"step", "total_steps", "dataset", "overlap", "parameters"}
        if path[0] not in beside and not {"random", "ceiling"} & set(path):
            expected["/".join(path)] = value
    assert dict(runs.scalars(made_up_evaluation)) == expected
    assert {name.split("/")[0] for name in expected} == {
        *("heldout", "linear_probe", "neighbors", "retrieval", "feature_retrieval")
    }
    assert "neighbors/targets/class/trained/unimodal/both" in expected
    assert "feature_retrieval/cnn/trained/video_to_audio/recall@10" in expected


@pytest.mark.parametrize("place", runs.FOLDERS)
def test_a_workdir_that_cannot_be_written_is_said_before_anything_is_evaluated(tmp_path, monkeypatch, place):
    def evaluate(*_):
        raise AssertionError("It was evaluated.")

    (tmp_path / "config.json").write_text(load_config_file("configs/pretrain.py:demo").to_json())
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("a file")
    monkeypatch.setattr("avshare_jax.evaluation.evaluate.evaluate", evaluate)
    with pytest.raises(UserError, match=rf"The folder .*{place} cannot be written \(File exists\): repair"):
        runs.evaluate_run(evaluation_config(), tmp_path)


def test_summaries_that_cannot_be_written_are_a_sentence(tmp_path):
    (tmp_path / "tensorboard").write_text("a file")
    with pytest.raises(UserError, match=r"^What was measured is printed above, and cannot be written to .*3\.json \("):
        runs.record(tmp_path, {"step": 3, "measures": {"both": {"top1": 0.5}}})


def test_a_report_that_cannot_be_drawn_costs_the_report_alone(capsys):
    def fail():
        raise ValueError("Unknown symbol: $5%\nand more")

    runs.draw(fail)
    sentence = "The report could not be drawn (ValueError: Unknown symbol: $5%); no measure is lost.\n"
    assert capsys.readouterr().out == sentence
    runs.draw(lambda: "report/index.html")
    assert capsys.readouterr().out == "Report: report/index.html\n"


def test_scalars_are_written_before_what_says_that_all_is_done(tmp_path, monkeypatch):
    evaluation = {"step": 3, "measures": {"both": {"top1": 0.5}}}

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.os, "getpid", killed)  # Asked for when the file is written.
        with pytest.raises(KeyboardInterrupt):
            runs.record(tmp_path, evaluation)
    assert not runs.evaluation_file(tmp_path, 3).exists()
    [path] = (tmp_path / "tensorboard" / "eval").iterdir()
    assert b"measures/both/top1" in path.read_bytes()
    runs.record(tmp_path, evaluation)
    assert json.loads(runs.evaluation_file(tmp_path, 3).read_text()) == evaluation

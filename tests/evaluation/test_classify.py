"""Which videos count in a test of classification, and what is said of the others."""

import dataclasses
import html
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from avshare_jax.data.outcomes import MISSING, REJECTED, USED, VIDEOS, Outcome, write_outcomes
from avshare_jax.data.unreadable import Unreadable
from avshare_jax.evaluation import classification_report, classify
from avshare_jax.evaluation.multi_view import Video
from avshare_jax.evaluation.overlap import Overlap
from avshare_jax.page_style import short_name
from avshare_jax.recipes import classification
from avshare_jax.settings import UserError
from tests import transfer
from tests.hostile_names import MARKUP, NAMES

BOTH = {"visual": True, "audio": True}


@pytest.fixture
def make_run(tmp_path):
    def make(**changes):
        config = classification("finetune_test", transfer.FRONTEND, ("visual", "audio"))
        config.task.class_names = ("cat", "dog", "owl")
        config.total_steps = 20
        config.update_from_flattened_dict(changes)
        dataset = SimpleNamespace(
            name="test", fingerprint="1", multi_label=False, directory=tmp_path, num_videos=lambda split: 6
        )
        return classify.Run(config, tmp_path, 10, dataset, 3)

    return make


@pytest.fixture
def videos():
    scores = np.eye(3)

    def video(label, present=BOTH, best=0):
        both = {"both": 2 * scores[best], "visual": scores[best], "audio": scores[best]}
        return Video(np.int32(label), present, 2, both)

    return {
        "right": video(0),
        "wrong": video(1, best=2),
        "deaf": video(2, {"visual": True, "audio": False}, best=2),
        "nothing": video(2, {"visual": False, "audio": False}),
        "unlabeled": video(-1),
        "damaged": video(1),
    }


def test_more_clips_than_positions_are_a_mistake(make_run, tmp_path):
    (tmp_path / "config.json").write_text(
        make_run(**{"model.positions": 22, "task.heads": ("tokens",)}).config.to_json()
    )
    with pytest.raises(UserError, match="num_clips=30 is too many: the network has 22 positions"):
        classify.open_run(transfer.evaluation_config(**{"data.num_clips": 30}), tmp_path, 10)


UNREADABLE = [Unreadable("test", "test", 4, "damaged", "frame 7 is damaged"), Unreadable("test", "test", 9, "", "gone")]


def select(run, videos):
    return classify.select(run, videos, UNREADABLE, classify.choices(("visual", "audio")))


def test_skipped_videos_have_a_reason(make_run, videos):
    scored = select(make_run(), videos)
    assert scored.video_ids == ["right", "wrong"]
    np.testing.assert_array_equal(scored.scores["both"], [[1, 0, 0], [0, 0, 1]])
    assert scored.skipped == {
        "damaged": "cannot be read: frame 7 is damaged",
        "deaf": "has no sound",
        "nothing": "has no image",
        "record 9": "cannot be read: gone",
        "unlabeled": "has no label",
    }


def test_videos_of_pretraining_are_said_and_left_out_where_asked(make_run, videos, tmp_path):
    overlap = Overlap("kinetics", 9, 6, frozenset({"right"}))
    run = dataclasses.replace(make_run(), overlap=overlap)
    found = classify.summarize(run, select(run, videos))
    assert found["overlap"]["overlapping_videos"] == 1 and found["dataset"]["num_videos"] == 2
    table = classification_report.format_table(found)
    assert "1 of the split's 6 videos are, by their ids, among the 9 of pretraining (kinetics)." in table
    scored = select(dataclasses.replace(run, excluded=overlap.to_exclude()), videos)
    assert scored.video_ids == ["wrong"] and scored.skipped["right"] == "was seen in pretraining"
    run.config.init_from = str(tmp_path / "gone")
    [sentence] = classify.overlap_with_pretraining(run.config, run.dataset).not_compared
    assert "gone is no longer there" in sentence


def test_incomplete_videos_count_where_they_are_kept(make_run, videos):
    scored = select(make_run(**{"data.keep_incomplete": True}), videos)
    assert scored.video_ids == ["right", "wrong", "deaf"]
    counted = {choice: flags.tolist() for choice, flags in scored.counted.items()}
    assert counted == {"both": [True] * 3, "visual": [True] * 3, "audio": [True, True, False]}
    assert scored.skipped["nothing"] == "has no image"


def test_videos_without_any_class_are_said_and_do_not_count(make_run):
    scores = {"both": np.array([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [1.0, 1.0, 1.0]])}
    scored = classify.Scored(
        ["a", "b", "c"], np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0]]), scores, {"both": np.ones(3, bool)}, {}
    )
    found = classify.summarize(make_run(), scored)
    assert (found["dataset"]["num_videos"], found["dataset"]["num_without_class"]) == (3, 1)
    assert found["measures"]["both"]["num_videos"] == 2 and found["measures"]["both"]["top1"] == 1
    assert "3 videos tested (1 without any class, which do not count)" in classification_report.format_table(found)


def test_classes_and_data_sets_may_have_any_name(make_run, tmp_path, drawn_texts):
    names = (*NAMES, *(f"{name} again" for name in NAMES))
    run = make_run(**{"task.class_names": names, "name": MARKUP, "init_from": MARKUP})
    run.dataset.name = MARKUP
    scores = np.eye(len(names))[::-1]
    counted = np.ones(len(names), bool)
    scored = classify.Scored(list(names), np.arange(len(names)), {"both": scores}, {"both": counted}, {})
    evaluation = classify.summarize(run, scored)
    page = classification_report.write_report(run.workdir / "report", evaluation).read_bytes().decode()
    assert {short_name(name) for name in names} <= set(drawn_texts)
    assert "<script>" not in page and page.count(html.escape(MARKUP)) >= 7  # Title, heading, lead, and two classes.
    assert not re.search(r"\d (%|s\b)", page)


def test_measures_are_written_before_a_report_is_drawn(make_run, videos, monkeypatch, capsys):
    def fail(*_):
        assert (run.workdir / "eval" / "10.json").exists()
        raise ValueError("Unknown symbol: \\frac")

    run = make_run()
    monkeypatch.setattr(classify, "open_run", lambda *_: run)
    monkeypatch.setattr(classify, "Classification", lambda config: None)
    monkeypatch.setattr(classify, "score_run", lambda *_: select(run, videos))
    monkeypatch.setattr(classification_report, "plot_confusion", fail)
    found = classify.evaluate(None, run.workdir)
    assert json.loads((run.workdir / "eval" / "10.json").read_text()) == found
    assert (run.workdir / "eval" / "10.videos.jsonl").exists() and list(
        (run.workdir / "tensorboard" / "eval").iterdir()
    )
    said = capsys.readouterr().out
    assert "image and sound" in said and "50.0 %" in said
    assert said.endswith("The report could not be drawn (ValueError: Unknown symbol: \\frac); no measure is lost.\n")


def test_what_cannot_be_written_is_printed_first(make_run, videos, monkeypatch, capsys):
    run = make_run()
    monkeypatch.setattr(classify, "open_run", lambda *_: run)
    monkeypatch.setattr(classify, "Classification", lambda config: None)
    monkeypatch.setattr(classify, "score_run", lambda *_: select(run, videos))
    (run.workdir / "eval").write_text("a file")
    with pytest.raises(
        UserError, match=r"is printed above, and cannot be written to .*10\.videos\.jsonl \(File exists\)"
    ):
        classify.evaluate(None, run.workdir)
    assert "50.0 %" in capsys.readouterr().out


def test_results_say_what_was_tested_and_what_is_missing(make_run, videos, tmp_path):
    outcomes = [
        Outcome(name, name, "test", "", (), kind)
        for name, kind in zip("abcd", (USED, MISSING, MISSING, REJECTED), strict=True)
    ]
    write_outcomes(tmp_path / VIDEOS, outcomes)
    run = make_run()
    scored = select(run, videos)
    found = classify.summarize(run, scored)
    assert found["dataset"] | {"skipped": {}} == {
        "name": "test",
        "fingerprint": "1",
        "split": "test",
        "num_classes": 3,
        "multi_label": False,
        "num_records": 6,
        "num_videos": 2,
        "num_without_class": 0,
        "num_skipped": 5,
        "skipped": {},
        "num_missing": 2,
        "num_rejected": 1,
    }
    assert found["dataset"]["skipped"]["cannot be read"] == 2
    assert found["measures"]["both"]["top1"] == 0.5
    table = classification_report.format_table(found)
    assert "3 classes, 2 videos tested, 5 skipped" in table and "2 missing, 1 rejected" in table and "50.0 %" in table
    classify.write(run, found, scored)
    classification_report.write_report(run.workdir / "report", found)
    lines = (tmp_path / "eval" / "10.videos.jsonl").read_text().splitlines()
    assert len(lines) == 7 and '"skipped": "has no label"' in lines[-1]
    page = (tmp_path / "report" / "index.html").read_text()
    assert "<td>dog</td><td>1</td><td>0.0&nbsp;%</td>" in page and "owl" in page

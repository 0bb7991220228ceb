"""The report opens from disk: all that the page shows lies beside it."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest
from etils import epath

from avshare_jax.evaluation.overlap import Overlap
from avshare_jax.evaluation.page import format_page
from avshare_jax.evaluation.plots import Picture, SheetRow, plot_sheet
from avshare_jax.evaluation.report import read_metrics, sheet_rows, write_report
from avshare_jax.page_style import short_name
from tests.hostile_names import MARKUP, NAMES

GOODPUT = {"steps": 90.0, "compilation": 9.0, "lost": 1.0, "downtime": 0.0}


class Images(HTMLParser):
    """Collects the sources of images and checks that elements are closed."""

    def __init__(self):
        super().__init__()
        self.sources, self.open, self.tags, self.texts = [], [], set(), []

    def handle_data(self, data):
        self.texts.append(data)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag == "img":
            self.sources.append(dict(attributes)["src"])
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def pictures():
    random = np.random.default_rng(0)
    return {
        place: Picture(
            random.integers(0, 256, (4, 16, 16, 3), np.uint8), random.normal(size=(40, 10)), f"class{place % 8}"
        )
        for place in range(40)
    }


@pytest.fixture
def metrics(made_up_evaluation):
    random = np.random.default_rng(0)
    found = made_up_evaluation["heldout"]["trained"]
    return [
        {"step": step}
        | {name: None if step == 40 else value * random.uniform(0.8, 1.2) for name, value in found.items()}
        for step in range(20, 901, 20)
    ]


def test_page_and_figures(tmp_path, made_up_evaluation, made_up_scores, metrics, pictures, drawn_texts):
    sheet = sheet_rows(made_up_scores["trained"], [pictures[place].caption for place in range(40)], 3)
    folder = epath.Path(tmp_path) / "run" / "report"
    page = write_report(folder, made_up_evaluation, metrics, made_up_scores, sheet, pictures, GOODPUT)
    text = page.read_text()
    found = Images()
    found.feed(text)
    assert found.open == []
    assert sorted(found.sources) == sorted(path.name for path in folder.glob("*.png"))
    assert len(found.sources) == 5
    for source in found.sources:
        height, width, _ = matplotlib.image.imread(str(folder / source)).shape
        assert width > 1200 and height > 300
    assert "http" not in text and str(tmp_path) not in text
    assert re.search(r"<b>25\.0&nbsp;%</b>", text)  # the weakest head of masked embedding prediction
    assert re.search(r"<td>steps</td><td>90&nbsp;s</td><td>90\.0&nbsp;%</td>", text) and "<td>lost</td>" in text
    assert "<td>downtime</td>" not in text
    assert "Whole network" in drawn_texts and not any("mathdefault" in text for text in drawn_texts)  # No formulas.


def test_a_run_without_labels_or_metrics_has_a_report_too(tmp_path, made_up_evaluation, made_up_scores, pictures):
    sheet = sheet_rows(made_up_scores["trained"], [f"video{place}" for place in range(40)], 2)
    evaluation = made_up_evaluation | {"linear_probe": None, "neighbors": None}
    page = write_report(epath.Path(tmp_path), evaluation, [], made_up_scores, sheet, pictures, GOODPUT)
    assert "probes.png" not in page.read_text()
    assert not (tmp_path / "probes.png").exists()


def test_page_of_imported_weights(tmp_path, made_up_evaluation):
    evaluation = made_up_evaluation | {"heldout": None, "retrieval": None}
    page = write_report(epath.Path(tmp_path), evaluation, [], {}, [], {}, {})
    found = Images()
    found.feed(page.read_text())
    assert (
        sorted(found.sources)
        == sorted(path.name for path in tmp_path.glob("*.png"))
        == ["parameters.png", "probes.png"]
    )
    text = page.read_text()
    assert "Class probe, multimodal Transformer" in text and "Nearest neighbors, accuracy of the timbre" in text
    low, high = made_up_evaluation["linear_probe"]["targets"]["class"]["intervals"]["trained"]["cnn"]["both"]
    assert f"<td>{100 * low:.1f}–{100 * high:.1f}</td>" in text


def test_page_says_what_is_missing_and_what_pretraining_has_seen(tmp_path, made_up_evaluation):
    evaluation = made_up_evaluation | {"heldout": None, "retrieval": None}
    evaluation["overlap"] = Overlap("k700", 90, 40, frozenset({"a", "b"})).to_json(excluded=False)
    text = write_report(epath.Path(tmp_path), evaluation, [], {}, [], {}, {}).read_text()
    assert "2 of the split&#x27;s 40 videos are, by their ids, among the 90 of pretraining (k700)" in text
    assert "8 classes" in text and "2 were rejected" in text and "files of 3 videos" in text


def test_names_are_escaped(tmp_path, made_up_evaluation, made_up_scores, pictures):
    sheet = sheet_rows(made_up_scores["trained"], ["a"] * 40, 1)
    evaluation = made_up_evaluation | {"run": MARKUP}
    evaluation["dataset"] = evaluation["dataset"] | {"name": MARKUP}
    evaluation["overlap"] = Overlap(MARKUP, 90, 40, not_compared=(MARKUP,)).to_json(excluded=False)
    found = Images()
    found.feed(write_report(epath.Path(tmp_path), evaluation, [], made_up_scores, sheet, pictures, GOODPUT).read_text())
    assert "script" not in found.tags
    # As title and heading; as data set, that of pretraining, and what could not be compared.
    assert " ".join(found.texts).count(MARKUP) == 5


def test_the_page_is_called_as_the_run(made_up_evaluation):
    page = format_page(made_up_evaluation, GOODPUT)
    assert "<title>pretrain_demo</title>" in page and "<h1>pretrain_demo</h1>" in page


def test_numbers_stay_with_their_units(made_up_evaluation):
    page = format_page(made_up_evaluation, GOODPUT)
    assert page.count("&nbsp;%") > 100 and not re.search(r"\d (%|s\b)", page)


def test_every_name_can_be_on_the_sheet_of_videos(tmp_path, pictures, drawn_texts):
    pictures = {place: dataclasses.replace(x, caption=NAMES[place % len(NAMES)]) for place, x in pictures.items()}
    sheet = [SheetRow(place, (place + 1, place + 2), (place + 3, place + 4), 1, 2) for place in (0, 5, 10)]
    plot_sheet(pictures, sheet, 40, epath.Path(tmp_path) / "videos.png")
    titles = {re.sub(r"^[12]\. ", "", text) for text in drawn_texts}
    assert {short_name(name) for name in NAMES} <= titles


def test_metrics_leave_out_a_line_that_is_being_written(tmp_path):
    path = epath.Path(tmp_path) / "metrics.jsonl"
    assert read_metrics(path) == []
    path.write_text(json.dumps({"step": 1, "loss": 2.0}) + "\n" + '{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1, "loss": 2.0}]


def test_sheet_shows_the_first_video_of_each_class_and_its_best_matches():
    scores = np.zeros((5, 5))
    scores[2] = [1, 5, 2, 4, 3]
    scores[:, 2] += [7, 8, 0, 6, 9]
    rows = sheet_rows(scores, ["a", "a", "b", "b", "a"], 6)
    assert [row.query for row in rows] == [0, 2]
    assert rows[1].sounds == [1, 3]
    assert rows[1].images == [4, 1]
    assert (rows[1].sound_rank, rows[1].image_rank) == (4, 5)
    assert len(sheet_rows(scores, ["a", "a", "b", "b", "a"], 1)) == 1


def test_page_of_late_fusion(tmp_path, late_evaluation, made_up_scores, metrics, pictures):
    sheet = sheet_rows(made_up_scores["trained"], [pictures[place].caption for place in range(40)], 3)
    page = write_report(epath.Path(tmp_path), late_evaluation, metrics, made_up_scores, sheet, pictures, GOODPUT)
    assert "Class probe, unimodal Transformer" in page.read_text()

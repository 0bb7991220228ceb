"""The report on a data set: its numbers against ones counted here, and its page in odd cases."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest
import simplejpeg
from etils import epath

from avshare_jax.data import report_plots
from avshare_jax.data.dataset import open_dataset
from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.outcomes import MISSING, NO_AUDIO, NO_VIDEO, REJECTED, USED, Outcome
from avshare_jax.data.records import Contents, write_dataset
from avshare_jax.data.report import write_report
from avshare_jax.data.report_plots import STRIP_WIDTH, draw_frames, draw_spectrogram
from avshare_jax.data.report_tally import normalize

FRONTEND = FrontEnd(fps=4.0, short_side=16, sample_rate=1_000, n_fft=100, hop_length=50, mels=3)
HOSTILE = "<script>alert('ü & \"日本\"')</script> $x$"


class Page(HTMLParser):
    """Checks that elements are closed; collects their texts and the sources of images."""

    def __init__(self, path):
        super().__init__()
        self.sources, self.open, self.texts, self.tags = [], [], [], set()
        self.feed(path.read_text())
        assert not self.open
        self.text = " ".join(self.texts)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag == "img":
            self.sources.append(dict(attributes)["src"])
        elif tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def make_record(video_id="a", labels=(), image=True, sound=True, frames=10):
    jpeg = simplejpeg.encode_jpeg(np.full((16, 24, 3), 100, np.uint8), colorsubsampling="420")
    return {
        "video_id": video_id,
        "source_id": video_id,
        "frames": [jpeg] * frames if image else [],
        "log_mel": np.random.default_rng(0).normal(size=(50 if sound else 0, 3)).astype(np.float32),
        "has_video": image,
        "has_audio": sound,
        "labels": labels,
    }


def make_dataset(folder, splits, **contents):
    write_dataset("videos", folder, splits, Contents(FRONTEND, jpeg_quality=90, **contents))
    return open_dataset(folder, "videos")


def used(video_id="a", split="train", **fields):
    about = {"labels": (), "outcome": USED, "seconds": 2.5, "width": 24, "height": 16, "fps": 25.0}
    return Outcome(video_id, video_id, split, f"/videos/{video_id}", **about | fields)


def report(dataset, outcomes, folder, unlisted=()):
    page = write_report(dataset, outcomes, unlisted, epath.Path(folder))
    assert sorted(path.name for path in epath.Path(folder).iterdir()) == ["prepare_report.html", "prepare_report.json"]
    return json.loads((page.parent / "prepare_report.json").read_text()), Page(page)


@pytest.fixture
def labeled(tmp_path):
    """A data set of two classes and two splits, and outcomes of its 4 videos and 5 others."""
    splits = {
        "train": [make_record("a", ("cat",)), make_record("b", ("dog",), sound=False), make_record("c", ("dog",))],
        "test": [make_record("d", (), image=False)],
    }
    dataset = make_dataset(tmp_path / "data", splits, class_names=("cat", "dog"), split_names={"all": "train+test"})
    outcomes = [
        used("a", labels=("cat",), loudness=-20.0, sample_rate=44_100, channels=2, notes=("It starts 0.5 s late.",)),
        used("b", labels=("dog",), outcome=NO_AUDIO, reason="It has no sound.", notes=("It starts 1.25 s late.",)),
        used("c", labels=("dog",), loudness=-3_000.0, sample_rate=8_000, channels=1, seconds=7.5, width=32, fps=29.97),
        used("d", "test", outcome=NO_VIDEO, reason="It has no image.", width=0, height=0, fps=0.0, loudness=-30.0),
        *(
            Outcome(name, name, "train", f"/videos/{name}", ("cat",), REJECTED, f"/videos/{name} has only {n} bytes.")
            for n, name in enumerate(["x", "y", "z"])
        ),
        Outcome("gone", "gone", "", "", (), MISSING, "There is no such file."),
        Outcome("v", "v", "test", "/videos/v", (), REJECTED, "It cannot be decoded."),
    ]
    return dataset, outcomes


def test_numbers(tmp_path, labeled):
    facts, page = report(*labeled, tmp_path / "report", unlisted=[f"/videos/other{n}.mp4" for n in range(7)])
    assert facts["videos"] == {"all": 9, "used": 4, NO_AUDIO: 1, NO_VIDEO: 1, REJECTED: 4, MISSING: 1}
    assert facts["outcomes"][REJECTED] == {"test": 1, "train": 3}
    assert facts["outcomes"][USED] == {"train": 2}
    assert facts["splits"] == {"test": 1, "train": 3}
    assert facts["seconds"] == 15.0
    assert facts["quantiles"]["seconds"]["50%"] == 2.5 and facts["quantiles"]["seconds"]["100%"] == 7.5
    assert facts["quantiles"]["width"]["100%"] == 32 and facts["quantiles"]["fps"]["0%"] == 25.0
    assert facts["quantiles"]["loudness"]["0%"] == -30.0 and facts["silent"] == 1
    assert facts["resolutions"] == {"24×16": 2, "32×16": 1}
    assert facts["frame_rates"] == {"25": 2, "29.97": 1}
    assert facts["sample_rates"] == {"44100": 1, "8000": 1}
    assert facts["class_balance"] == {"cat": {"train": 1}, "dog": {"train": 2}}
    assert facts["unlabeled"] == {"test": 1}
    assert facts["unlisted"]["count"] == 7 and len(facts["unlisted"]["examples"]) == 5
    assert "in the data set" in page.text and page.texts[page.texts.index("Minutes") + 1] == "0.25"
    for text in ("/videos/other4.mp4", "all stands for train+test", "no sound", "no image", "1 video has no class"):
        assert text in page.text


def test_reasons_and_notes_are_counted_by_kind(tmp_path, labeled):
    facts, page = report(*labeled, tmp_path / "report")
    first = facts["reasons"][0]
    assert (first["outcome"], first["sentence"], first["count"]) == (REJECTED, "FILE has only N bytes.", 3)
    assert first["examples"][1] == {"video_id": "y", "path": "/videos/y", "sentence": "/videos/y has only 1 bytes."}
    assert [(kind["sentence"], kind["count"]) for kind in facts["notes"]] == [("It starts N s late.", 2)]
    assert {kind["sentence"] for kind in facts["reasons"]} == {
        "FILE has only N bytes.",
        "It has no sound.",
        "It has no image.",
        "There is no such file.",
        "It cannot be decoded.",
    }
    assert "FILE has only N bytes." in page.text


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("It lasts 0.45 s, less than 1 s.", "It lasts N s, less than N s."),
        ("clip (1).mp4 is cut off at byte 1,234.", "FILE is cut off at byte N."),
        ("/my videos/clip (1).mp4 is not H.264 but mp3.", "FILE is not H.264 but mp3."),
        ("Cannot read '/tmp/x1/y': it lies at 0x7fA0.", "Cannot read 'FILE': it lies at N."),
        ("The classification is odd.", "The classification is odd."),
    ],
)
def test_kinds_of_sentences(sentence, kind):
    outcome = Outcome("clip (1).mp4", "odd", "train", "/my videos/clip (1).mp4", (), REJECTED)
    assert normalize(sentence, outcome) == kind


def test_the_same_input_gives_the_same_bytes(tmp_path, labeled):
    files = []
    for name in ("first", "second"):
        report(*labeled, tmp_path / name)
        files.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert files[0] == files[1]


def test_pictures_are_in_the_page(tmp_path, labeled):
    _, page = report(*labeled, tmp_path / "report")
    # Histograms, and of each of four records frames and spectrogram, but for one of each that is not there.
    assert len(page.sources) == 1 + 2 * 4 - 2
    for source in page.sources:
        kind, data = re.fullmatch(r"data:image/(png|jpeg);base64,(.+)", source).groups()
        picture = base64.b64decode(data)
        pixels = matplotlib.image.imread(io.BytesIO(picture)) if kind == "png" else simplejpeg.decode_jpeg(picture)
        assert pixels.std() > 0.01


def test_one_unlabeled_record_without_sound(tmp_path):
    dataset = make_dataset(tmp_path / "data", {"train": [make_record(sound=False, frames=1)]})
    facts, page = report(dataset, [used(outcome=NO_AUDIO, reason="No sound.")], tmp_path / "report")
    assert facts["class_balance"] == facts["unlabeled"] == facts["quantiles"]["loudness"] == {}
    assert "No labels" in page.text and "Class balance" not in page.text and "no class" in page.text


def test_nothing_but_sound(tmp_path):
    dataset = make_dataset(tmp_path / "data", {"train": [make_record(image=False)]})
    outcome = used(outcome=NO_VIDEO, reason="No image.", width=0, height=0, fps=0.0, loudness=-400.0)
    facts, page = report(dataset, [outcome], tmp_path / "report")
    assert facts["silent"] == 1 and facts["resolutions"] == {}
    assert "no image" in page.text and "Silent" in page.text


def test_nothing_is_known_but_ids(tmp_path):
    dataset = make_dataset(tmp_path / "data", {"train": [make_record()]})
    _, page = report(dataset, [used(seconds=0.0, width=0, fps=0.0)], tmp_path / "report")
    assert len(page.sources) == 2  # No histograms.


def test_a_damaged_record_is_said_to_be_damaged(tmp_path):
    damaged = make_record("b") | {"frames": [b"no <picture>"]}
    dataset = make_dataset(tmp_path / "data", {"train": [make_record("a"), damaged]})
    _, page = report(dataset, [used("a"), used("b")], tmp_path / "report")
    assert "Record 1 of train" in page.text and page.text.count("Its record cannot be read: ") == 1
    assert sum(source.startswith("data:image/jpeg") for source in page.sources) == 2


def test_hostile_names_are_text(tmp_path):
    record = make_record(HOSTILE, (HOSTILE,))
    dataset = make_dataset(tmp_path / "data", {"train": [record]}, class_names=(HOSTILE,))
    surrogate = "not \udcff UTF-8"
    outcomes = [
        used(HOSTILE, labels=(HOSTILE,), notes=(f"Odd: {HOSTILE}",)),
        Outcome(surrogate, surrogate, "train", surrogate, (), REJECTED, f"{surrogate} is {HOSTILE}"),
    ]
    facts, page = report(dataset, outcomes, tmp_path / "report", unlisted=[HOSTILE, surrogate])
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) >= 4  # As record, class, example of a note, and unlisted file.
    assert facts["unlisted"]["examples"] == [HOSTILE, surrogate]
    [reason] = facts["reasons"]
    assert reason["examples"][0]["video_id"] == reason["examples"][0]["path"] == r"not \xff UTF-8"


def test_a_picture_that_cannot_be_drawn_costs_the_picture_alone(tmp_path, labeled, monkeypatch, capsys):
    def fail(*_):
        assert (tmp_path / "report" / "prepare_report.json").exists()
        raise ValueError("Unknown symbol: $x$")

    monkeypatch.setattr(report_plots, "plot_measures", fail)
    facts, page = report(*labeled, tmp_path / "report")
    assert facts["videos"]["all"] == 9 and len(page.sources) == 2 * 4 - 2  # No histograms.
    sentence = "A picture of the report could not be drawn (ValueError: Unknown symbol: $x$).\n"
    assert capsys.readouterr().out == sentence


@pytest.mark.parametrize("seconds", [[30.0, 32.0, 40.0, 700.0], [0.2, 1.0, 30.0, 31.0], [2.0, 3.0]])
def test_durations_on_any_scale_need_no_formulas(seconds, drawn_texts):
    assert report_plots.plot_measures(seconds, [-20.0], {"$24×16": 2}, {"25": 1}).startswith(b"\x89PNG")
    assert "$24×16" in drawn_texts and not any("mathdefault" in text for text in drawn_texts)


def test_numbers_stay_with_their_units(tmp_path, labeled):
    report(*labeled, tmp_path / "report")
    page = (tmp_path / "report" / "prepare_report.html").read_text()
    assert "3.75&nbsp;s a video" in page and "44,100&nbsp;Hz" in page and not re.search(r"\d (s|Hz|dB)\b", page)


def test_one_class(tmp_path):
    dataset = make_dataset(tmp_path / "data", {"train": [make_record("a", ("cat",))]}, class_names=("cat",))
    _, page = report(dataset, [used("a", labels=("cat",), seconds=7_200.0)], tmp_path / "report")
    assert "1 class. " in page.text and "1 class, 1 video each. " in page.text and "1 classes" not in page.text
    assert page.texts[page.texts.index("Hours") + 1] == "2.00"


def test_many_classes_of_multi_label_records(tmp_path):
    names = tuple(f"class {number:03d}" for number in range(60))
    records = [make_record("a", names[:50]), make_record("b", names[:1]), make_record("c")]
    dataset = make_dataset(tmp_path / "data", {"train": records}, class_names=names, multi_label=True)
    outcomes = [used("a", labels=names[:50]), used("b", labels=names[:1]), used("c")]
    facts, page = report(dataset, outcomes, tmp_path / "report")
    assert facts["class_balance"]["class 000"] == {"train": 2} and facts["class_balance"]["class 059"] == {}
    assert "60 classes; a video may have several" in page.text and "10 smallest" in page.text
    assert sum(page.texts.count(name) for name in names) == 20 + 1  # The ends of the list; and the class of record b.
    assert sum(source.startswith("data:image/png") for source in page.sources) == 2


def test_only_some_of_many_records_are_drawn_from_all_splits(tmp_path):
    splits = {split: [make_record(f"{split}{n}") for n in range(count)] for split, count in [("a", 30), ("b", 10)]}
    dataset = make_dataset(tmp_path / "data", splits)
    outcomes = [used(record["video_id"], split) for split, records in splits.items() for record in records]
    _, page = report(dataset, outcomes, tmp_path / "report")
    shown = [text for text in page.texts if re.fullmatch(r"[ab]\d+", text)]
    assert len(set(shown)) == len(shown) == 12 and {text[0] for text in shown} == {"a", "b"}


@pytest.mark.parametrize(("height", "width"), [(16, 24), (24, 16), (8, 160), (160, 120)])
def test_frames_fill_the_strip_in_order(height, width):
    grays = np.linspace(0, 255, 50).astype(np.uint8)
    frames = [
        simplejpeg.encode_jpeg(np.full((height, width, 3), gray, np.uint8), colorsubsampling="444") for gray in grays
    ]
    strip = simplejpeg.decode_jpeg(draw_frames(frames))
    assert strip.shape[1] == STRIP_WIDTH and 20 < strip.shape[0] < 200
    middle = strip[strip.shape[0] // 2, : STRIP_WIDTH - 20, 0].astype(int)
    assert (np.diff(middle) >= -4).all() and (middle[-1] > middle[0] or width / height > 9)


def test_spectrogram_has_high_frequencies_above():
    log_mel = np.zeros((100, 8), np.float32)
    log_mel[:50, 7] = 5.0
    picture = simplejpeg.decode_jpeg(draw_spectrogram(log_mel)).astype(int)
    assert picture.shape[1] == STRIP_WIDTH
    top, bottom = picture[2], picture[-3]
    assert top[:400].mean() > 150 > 60 > max(top[600:].mean(), bottom.mean())
    assert simplejpeg.decode_jpeg(draw_spectrogram(np.full((4, 8), -13.8, np.float32))).max() < 60

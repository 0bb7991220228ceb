"""What of an interrupted preparation is gone on with, and by whom."""

import dataclasses
import fcntl
import json
from pathlib import Path

import pytest

from avshare_jax.data import building, unfinished
from avshare_jax.data.building import build
from avshare_jax.data.dataset import DatasetError
from avshare_jax.data.sources import folder
from avshare_jax.data.sources.listing import Listing, Video
from tests.data.test_building import settings
from tests.data.test_building import videos as videos  # a fixture


def interrupt(*arguments) -> None:
    raise KeyboardInterrupt


def begin_only(listing: Listing, data_dir: Path, monkeypatch) -> None:
    """Leaves a preparation that was interrupted before its first shard."""
    with monkeypatch.context() as patch:
        patch.setattr(building, "run_pipeline", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build(listing, settings(data_dir), workers=1)


def test_more_or_less_memory_is_no_other_setting(videos, tmp_path, monkeypatch):
    listing = folder.find(videos)
    begin_only(listing, tmp_path, monkeypatch)
    unfinished.begin(listing, settings(tmp_path, memory_limit=10**9))


def test_what_was_begun_with_other_settings_is_not_gone_on_with(videos, tmp_path, monkeypatch):
    listing = folder.find(videos)
    begin_only(listing, tmp_path, monkeypatch)
    with pytest.raises(DatasetError, match=r"begun with other settings: min_seconds was 1.0 and is now 0.5\. Repeat"):
        build(listing, settings(tmp_path, min_seconds=0.5), workers=1)
    notes = tmp_path / "videos" / "unfinished"
    for name in ("settings.json", "listing.json"):
        whole = (notes / name).read_text()
        for damaged in (whole[:-5], "[]", ""):
            (notes / name).write_text(damaged)
            with pytest.raises(DatasetError, match=rf"{name} is damaged or missing: delete .*/videos to begin anew"):
                build(listing, settings(tmp_path), workers=1)
        (notes / name).write_text(whole)
    with pytest.raises(KeyboardInterrupt):
        monkeypatch.setattr(building, "run_pipeline", interrupt)
        build(listing, settings(tmp_path), workers=1)


def test_what_was_begun_with_other_colors_is_not_gone_on_with(videos, tmp_path, monkeypatch):
    listing = folder.find(videos)
    begin_only(listing, tmp_path, monkeypatch)
    path = tmp_path / "videos" / "unfinished" / "settings.json"
    begun = json.loads(path.read_text())
    assert begun["contents"].pop("revision") == 2
    path.write_text(json.dumps(begun))
    listing.splits["train"].append(Video("of a kind that was not taken then", "/x"))
    with pytest.raises(DatasetError, match="other colors: delete .*/videos to begin anew, or go on with that version"):
        build(listing, settings(tmp_path), workers=1)


def test_changed_videos_are_named(tmp_path, monkeypatch):
    found = [Video(f"{number}.mp4", f"/videos/{number}.mp4", ("a",)) for number in range(9)]
    begun = Listing({"train": found[:4], "test": found[4:5]}, ("a", "b"))
    begin_only(begun, tmp_path, monkeypatch)

    def resume(listing: Listing) -> str:
        with pytest.raises((DatasetError, KeyboardInterrupt)) as caught:
            build(listing, settings(tmp_path), workers=1)
        return str(caught.value)

    monkeypatch.setattr(building, "run_pipeline", interrupt)
    moved = [dataclasses.replace(video, path=f"/elsewhere/{video.video_id}") for video in found]
    other = {"missing": [("gone", "It is gone.")], "unlisted": ["/videos/other.mp4"]}
    assert resume(Listing({"train": moved[:4], "test": moved[4:5]}, ("a", "b"), **other)) == ""  # not refused
    delete = f"or delete {tmp_path}/videos to begin anew."
    message = resume(Listing({"train": found[:4], "test": found[4:]}, ("a", "b")))
    assert "begun with: 4 videos appeared (5.mp4, 6.mp4, 7.mp4, ...). Move the new files away" in message
    assert message.endswith(delete)
    relabeled = [dataclasses.replace(found[0], labels=("b",)), *found[1:3]]
    message = resume(Listing({"train": [*relabeled, found[4]], "test": found[5:6]}, ("a", "b")))
    assert (
        "1 video appeared (5.mp4); 1 video vanished (3.mp4); 2 videos changed split or classes (0.mp4, 4.mp4). Undo"
    ) in message
    assert message.endswith(delete)


def test_only_one_process_prepares_a_data_set(videos, tmp_path, monkeypatch):
    listing = Listing({"test": folder.find(videos).splits["test"]}, ("a", "b"))
    begin_only(listing, tmp_path, monkeypatch)
    directory = tmp_path / "videos" / "1.0.0"
    partial = directory / ".shard.1.partial"
    partial.touch()
    with open(tmp_path / "videos" / "unfinished" / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DatasetError, match="Another preparation of the data set .* is running: wait until it ends"):
            build(listing, settings(tmp_path), workers=1)
        assert partial.exists()
    build(listing, settings(tmp_path), workers=1)
    assert not partial.exists()
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["1.0.0"]

"""What holds for every source."""

import argparse
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from avshare_jax.data.errors import DatasetError
from tests.data.sources import trees

SOURCES = sorted({maker.split()[0] for maker in trees.MAKERS})


@pytest.mark.parametrize("maker", trees.MAKERS.values(), ids=trees.MAKERS)
def test_every_file_is_listed_once_and_splits_are_disjoint(maker, tmp_path, find):
    written = []
    listing = find(maker(tmp_path, lambda path: (path.touch(), written.append(str(path)))))
    videos = [video for split in listing.splits.values() for video in split]
    listed = [video.path for video in videos] + listing.unlisted
    assert len(set(listed)) == len(listed)
    unwanted = {path for path in written if "abseiling" in path}  # of Kinetics-400, but not of Kinetics-Sounds
    assert set(listed) == set(written) - unwanted
    assert len({video.video_id for video in videos}) == len(videos)
    assert all(
        split and [v.video_id for v in split] == sorted(v.video_id for v in split) for split in listing.splits.values()
    )
    assert {label for video in videos for label in video.labels} <= set(listing.class_names)
    assert len(set(listing.class_names)) == len(listing.class_names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in {*listing.splits, *listing.split_names})
    assert not set(listing.splits) & set(listing.split_names)
    assert all(set(union.split("+")) <= set(listing.splits) for union in listing.split_names.values())
    assert listing.multi_label or all(len(video.labels) <= 1 for video in videos)


@pytest.mark.parametrize("maker", trees.MAKERS.values(), ids=trees.MAKERS)
def test_a_folder_without_anything_that_is_named(maker, tmp_path, find):
    arguments = maker(tmp_path, lambda path: None)
    with pytest.raises(DatasetError, match="There is n"):
        find(arguments)
    media = Path(next(argument for argument in arguments if argument.startswith("--videos")).partition("=")[2])
    media = media / "audio" if arguments[0] == "esc50" else media
    if arguments[0] != "folder":
        (media / "-another.mp4").touch()
        (media / "-another.wav").touch()
        with pytest.raises(DatasetError, match=r"files are expected to be called like .* for example '-another'"):
            find(arguments)


@pytest.mark.parametrize("source", SOURCES)
def test_documentation_is_one_line_of_help_and_a_command_that_parses(source):
    module = importlib.import_module(f"avshare_jax.data.sources.{source}")
    first_line, _, rest = module.__doc__.partition("\n\n")
    assert "\n" not in first_line and first_line.endswith(".")
    command = rest.partition("\n\n")[0].replace("\\\n", " ").split()
    assert command[:4] == ["python", "-m", "avshare_jax.prepare", source]
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    parser.add_argument("--name", required=True)
    assert parser.parse_args(command[4:]).videos
    assert "--videos" in parser.format_help()  # argparse stumbles over a % in a help text only here


def test_sources_do_without_tensorflow():
    imports = "; ".join(f"import avshare_jax.data.sources.{source}" for source in SOURCES)
    check = f"{imports}; import sys; sys.exit(' '.join({{'tensorflow', 'jax', 'cv2', 'av'}} & set(sys.modules)) or 0)"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr

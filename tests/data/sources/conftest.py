"""Listings of trees in the formats of publishers, found as the command finds them."""

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from avshare_jax.data.sources.listing import Listing


def run(arguments: list[str]) -> Listing:
    """Finds videos with the arguments of a command: a source's name and its options."""
    source = importlib.import_module(f"avshare_jax.data.sources.{arguments[0]}")
    parser = argparse.ArgumentParser(prog=arguments[0])
    source.add_arguments(parser)
    return source.find_videos(parser.parse_args(arguments[1:]))


@pytest.fixture
def find() -> Callable[[list[str]], Listing]:
    return run


@pytest.fixture
def tree_listing(tmp_path: Path) -> Callable[[Callable], Listing]:
    """Returns a function that makes one of the trees in `tmp_path` with empty files and lists it."""
    return lambda make_tree: run(make_tree(tmp_path, Path.touch))


@pytest.fixture
def summary() -> Callable[[Listing], dict]:
    """Returns a function that gives a listing's splits as id → (path below the media folder, labels)."""

    def summarize(listing: Listing, root: Path) -> dict:
        return {
            split: {video.video_id: (Path(video.path).relative_to(root).as_posix(), video.labels) for video in videos}
            for split, videos in listing.splits.items()
        }

    return summarize

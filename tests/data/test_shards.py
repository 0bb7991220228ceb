"""How videos are divided into shards."""

import pytest

from avshare_jax.data.shards import divide
from avshare_jax.data.sources.listing import Video
from tests.data.test_building import settings


def test_shards_depend_on_ids_alone_and_are_about_equal(tmp_path):
    found = [Video(f"video {number}", "somewhere") for number in range(211)]
    shards = divide("train", found, settings(tmp_path, videos_per_shard=3))
    assert len(shards) == 71 and {len(shard.videos) for shard in shards} == {2, 3}
    again = divide("train", found[::-1], settings(tmp_path, videos_per_shard=3))
    assert shards == again
    order = [video.video_id for shard in shards for video in shard.videos]
    assert sorted(order) == sorted(video.video_id for video in found) != order
    assert divide("train", [], settings(tmp_path)) == []


@pytest.mark.parametrize(("videos", "shards"), [(1, 1), (40, 40), (64, 64), (65, 33), (640, 64), (12_800, 100)])
def test_few_videos_still_make_many_shards(tmp_path, videos, shards):
    found = [Video(f"video {number}", "somewhere") for number in range(videos)]
    divided = divide("train", found, settings(tmp_path, videos_per_shard=128))
    assert len(divided) == shards and {shard.count for shard in divided} == {shards}

"""Several data sets in one stream of batches. Which record an element holds is told by its spectrogram."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from avshare_jax.data.batches import train_batches
from avshare_jax.data.dataset import open_dataset
from avshare_jax.data.elements import draw_order, replacements
from avshare_jax.data.errors import DatasetError
from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.mixtures import Mixture, open_mixture
from avshare_jax.data.records import Contents, write_dataset


@pytest.fixture
def mixed(dataset_dir, data_config, tmp_path, without_label):
    """A function that opens "tiny" (11 training videos) and "few" (4), whose spectrograms count from 100 on."""
    tiny = open_dataset(dataset_dir, "tiny")
    (tmp_path / "tiny").symlink_to(dataset_dir / "tiny")
    records = [without_label(tiny.source("train")[number]) for number in (0, 1, 2, 5)]
    for number, record in enumerate(records):
        record["log_mel"], record["has_audio"] = np.full((200, 3), 100 + number, np.float32), True
    write_dataset("few", tmp_path, {"train": records}, Contents(tiny.frontend, 98))
    write_dataset("slow", tmp_path, {"train": records}, Contents(FrontEnd(fps=2.0, mels=3), 98))

    def open_named(name, weights=()):
        data = SimpleNamespace(name=name, data_dir=tmp_path, weights=weights, frontend=vars(tiny.frontend))
        return open_mixture(data)

    return open_named


def videos(mixture, data_config, batch_size, count, **options):
    data_config.keep_incomplete = True
    batches = train_batches(mixture, data_config, seed=3, batch_size=batch_size, **options)
    found = [batch["log_mel"][:, 0, 0, 0].round().astype(int) for batch in itertools.islice(batches, count)]
    batches.close()
    return np.concatenate(found)


def epochs(numbers, size):
    return [sorted(numbers[start : start + size]) for start in range(0, len(numbers) - size + 1, size)]


@pytest.mark.parametrize(("weights", "shares"), [((), (11 / 15, 4 / 15)), ((1, 1), (0.5, 0.5)), ((1, 3), (0.25, 0.75))])
def test_each_data_set_has_its_share_and_whole_epochs(mixed, data_config, weights, shares):
    mixture = mixed("tiny+few", weights)
    assert mixture.shares("train") == pytest.approx(shares)
    numbers = videos(mixture, data_config, 12, 20)
    few = numbers[numbers >= 100]
    assert len(few) / len(numbers) == pytest.approx(shares[1], abs=0.01)
    assert all(epoch == [100, 101, 102, 103] for epoch in epochs(few, 4))
    # The silent video 3 of "tiny" is at the value of silence, ln(1e-6).
    assert all(epoch == [-14, 0, 1, 2, *range(4, 11)] for epoch in epochs(numbers[numbers < 100], 11))


def test_a_mixture_is_a_function_of_seed_and_step(mixed, data_config):
    mixture = mixed("tiny+few", (2, 1))
    whole = videos(mixture, data_config, 8, 6)
    for hosts in (1, 2, 4):
        parts = [
            videos(mixture, data_config, 8, 4, start_step=2, process_index=index, process_count=hosts)
            for index in range(hosts)
        ]
        joined = np.concatenate([part.reshape(4, -1) for part in parts], axis=1)
        np.testing.assert_array_equal(joined.ravel(), whole[16:])
    data_config.num_workers = 1
    np.testing.assert_array_equal(videos(mixture, data_config, 8, 4, start_step=2), whole[16:])


def test_every_epoch_has_an_order_of_its_own():
    order = draw_order((7, 5), (7, 5), seed=0)
    drawn = [order[index] for index in range(48)]
    for dataset, size in enumerate((7, 5)):
        numbers = [number for part, number in drawn if part == dataset]
        orders = [tuple(numbers[start : start + size]) for start in range(0, 4 * size, size)]
        assert all(sorted(numbers) == list(range(size)) for numbers in orders)
        assert len(set(orders)) > 1


def test_identity_names_all(mixed):
    mixture, alone = mixed("tiny+few"), mixed("few")
    assert mixture.name == "tiny+few" and mixture.num_videos("train") == 15
    assert mixture.fingerprint == f"{mixed('tiny').fingerprint}+{alone.fingerprint}"
    assert isinstance(alone, Mixture) and alone.shares("train") == (1.0,)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("tiny+few", (1.0,), "has 1 numbers for the 2 data sets tiny.few"),
        ("tiny+few", (1.0, 0.0), "must be positive"),
        ("tiny+few", (1.0, float("nan")), "must be positive"),
        ("tiny+tiny", (), "names a data set twice"),
        ("tiny+none", (), "There is no data set .*none"),
        ("tiny+slow", (), "slow/1.0.0 does not fit the config: fps is 2.0 in the data set and 4.0 in the config"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(mixed, name, weights, message):
    with pytest.raises(DatasetError, match=message):
        mixed(name, weights)


def test_a_split_that_one_data_set_lacks_gets_a_sentence(mixed, data_config):
    data_config.train_split = "test"
    with pytest.raises(DatasetError, match="few/1.0.0 has no split 'test'"):
        train_batches(mixed("tiny+few"), data_config, seed=0, batch_size=2)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 97, 1000])
def test_replacements_visit_everything_once_and_not_in_a_row(count):
    visited = list(replacements(count // 2, count))
    assert sorted(visited) == list(range(count)) and visited[0] == count // 2
    if count >= 10:
        assert all(abs(np.diff(visited)) > 1)
    # Two that have to be replaced get different replacements.
    assert (
        len({next(itertools.islice(replacements(number, count), count - 1, None)) for number in range(count)}) == count
    )

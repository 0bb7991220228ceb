"""Parameters in two trees that make up one."""

import jax

from avshare_jax.training.partition import everything, join, split

TREE = {"network": {"cnn": {"kernel": 1, "bias": 2}, "norm": {"scale": 3}}, "head": {"kernel": 4}}


def test_parts_make_up_the_tree():
    trained, frozen = split(TREE, lambda path: not path.startswith("network/cnn/"))
    assert trained == {"network": {"norm": {"scale": 3}}, "head": {"kernel": 4}}
    assert frozen == {"network": {"cnn": {"kernel": 1, "bias": 2}}}
    assert join(trained, frozen) == TREE
    assert jax.tree.structure(join(trained, frozen)) == jax.tree.structure(TREE)


def test_all_or_nothing():
    assert split(TREE, everything) == (TREE, {})
    assert join(TREE, {}) is TREE
    assert join(*split(TREE, lambda path: False)) == TREE

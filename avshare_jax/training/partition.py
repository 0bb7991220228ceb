"""Parameters that are trained and parameters that stay as they are, as two trees that make up one."""

from collections.abc import Callable
from typing import Any

from flax import traverse_util

IsTrained = Callable[[str], bool]
"""Of a parameter's path, such as "network/visual_cnn/stem/kernel"."""


def everything(_path: str) -> bool:
    """All parameters are trained."""
    return True


def split(params: Any, is_trained: IsTrained) -> tuple[Any, Any]:
    """Splits a tree of dictionaries into what is trained and what is not."""
    if is_trained is everything:
        return params, {}
    flat = traverse_util.flatten_dict(params, sep="/")
    trained = {path: x for path, x in flat.items() if is_trained(path)}
    frozen = {path: x for path, x in flat.items() if path not in trained}
    return traverse_util.unflatten_dict(trained, sep="/"), traverse_util.unflatten_dict(frozen, sep="/")


def join(trained: Any, frozen: Any) -> Any:
    """Undoes `split`."""
    if not frozen:
        return trained
    flat = traverse_util.flatten_dict(trained, sep="/") | traverse_util.flatten_dict(frozen, sep="/")
    return traverse_util.unflatten_dict(flat, sep="/")

"""A network of all parts, as small as they go, and a batch for it."""

import numpy as np
import pytest
from ml_collections import ConfigDict


@pytest.fixture(scope="session")
def micro_model():
    """Returns a function that makes a model config for 3 clips, with the given fields replaced."""

    def make(**overrides):
        config = {
            "visual_cnn": {
                "width": 3,
                "stage_sizes": (1, 1),
                "temporal_kernels": (1, 3),
                "stem_kernel": (3, 3, 3),
                "stem_strides": (1, 2, 2),
            },
            "audio_cnn": {"width": 3, "stage_sizes": (1, 1), "separable_stages": 1, "stem_kernel": 3},
            "hidden": 8,
            "mlp": 12,
            "heads": 2,
            "layers": 1,
            "rank": 4,
            "fusion": "mid",
            "layer_sharing": "all",
            "transformer_sharing": "factorized",
            "orthogonal_map": "expm",
            "dropout": 0.0,
            "positions": 4,
            "dtype": "float32",
        }
        return ConfigDict(config | overrides)

    return make


@pytest.fixture(scope="session")
def micro_batch():
    """Three videos of three clips; each clip has colors and a spectrum of its own, so that no two look alike."""
    random = np.random.default_rng(7)
    colors, spectra = random.uniform(0, 205, (3, 3, 1, 4, 4, 3)), random.normal(0, 3, (3, 3, 1, 10))
    return {
        "frames": (colors.repeat(4, 3).repeat(4, 4) + random.uniform(0, 50, (3, 3, 2, 16, 16, 3))).astype(np.uint8),
        "log_mel": (spectra + random.normal(0, 1, (3, 3, 12, 10))).astype(np.float32),
    }


@pytest.fixture(scope="session")
def numpy_layer_norm():
    """LayerNorm in float64 with the epsilon of BERT."""

    def layer_norm(x, params):
        x = np.asarray(x, np.float64)
        normalized = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return normalized * params["scale"] + params["bias"]

    return layer_norm

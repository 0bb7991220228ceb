"""Sizes of the network: `base` is the paper's, `tiny` trains on a CPU."""

from ml_collections import ConfigDict


def base() -> ConfigDict:
    """The paper's network: 43.8 M parameters, of which the Transformers 3.8 M (127.6 M if nothing were shared)."""
    return ConfigDict(
        {
            "visual_cnn": {
                "width": 64,
                "stage_sizes": (3, 4, 6, 3),
                "temporal_kernels": (1, 1, 3, 3),
                "stem_kernel": (5, 7, 7),
                "stem_strides": (2, 2, 2),
            },
            "audio_cnn": {"width": 32, "stage_sizes": (3, 4, 6, 3), "separable_stages": 2, "stem_kernel": 9},
            "hidden": 768,
            "mlp": 3072,
            "heads": 12,
            "layers": 6,
            "rank": 128,  # None: full weights
            "fusion": "mid",  # early, mid or late
            "layer_sharing": "all",  # none, all or factorized (U shared)
            "transformer_sharing": "factorized",  # the same
            "orthogonal_map": "expm",  # or cayley
            "dropout": 0.1,
            "positions": 31,  # 30 clips and BOS; the released checkpoint has 22.
            "dtype": "bfloat16",
        }
    )


def tiny() -> ConfigDict:
    """A network of the same parts that trains in minutes on two CPU cores."""
    return ConfigDict(
        {
            "visual_cnn": {
                "width": 12,
                "stage_sizes": (1, 1, 1),
                "temporal_kernels": (1, 1, 3),
                "stem_kernel": (1, 5, 5),
                "stem_strides": (1, 2, 2),
            },
            "audio_cnn": {"width": 8, "stage_sizes": (1, 1, 1), "separable_stages": 2, "stem_kernel": 9},
            "hidden": 96,
            "mlp": 384,
            "heads": 4,
            "layers": 3,
            "rank": 24,
            "fusion": "mid",
            "layer_sharing": "all",
            "transformer_sharing": "factorized",
            "orthogonal_map": "expm",
            "dropout": 0.0,
            "positions": 9,
            "dtype": "float32",
        }
    )

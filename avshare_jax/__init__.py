"""Parameter-efficient multimodal Transformers for video (AVBERT, Lee et al., ICLR 2021) in JAX."""

__version__ = "0.1.0"

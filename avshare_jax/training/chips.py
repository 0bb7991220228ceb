"""What accelerators can do at best, by the figures that their makers publish."""

from typing import NamedTuple


class Chip(NamedTuple):
    """Limits of one device.

    Attributes:
      memory: bytes of main memory (HBM).
      flops: floating-point operations a second, of matrix products in bfloat16.
      bandwidth: bytes a second to and from main memory.
      exchange: bytes a second to other devices, over all links, in both directions together.
    """

    memory: float
    flops: float
    bandwidth: float
    exchange: float


# By JAX's name of the device's kind. TPUs: Google Cloud's documentation of each version, which gives the links between
# chips in Gbit/s. GPUs: NVIDIA's data sheets, without sparsity, with NVLink.
CHIPS = {
    "TPU v4": Chip(32 * 2**30, 275e12, 1.228e12, 2400e9 / 8),
    "TPU v5 lite": Chip(16 * 2**30, 197e12, 0.819e12, 1600e9 / 8),
    "TPU v5": Chip(95 * 2**30, 459e12, 2.765e12, 4800e9 / 8),
    "TPU v6 lite": Chip(32 * 2**30, 918e12, 1.640e12, 3584e9 / 8),
    "NVIDIA A100-SXM4-80GB": Chip(80e9, 312e12, 2.039e12, 600e9),
    "NVIDIA H100 80GB HBM3": Chip(80e9, 989e12, 3.35e12, 900e9),
    "NVIDIA H200": Chip(141e9, 989e12, 4.8e12, 900e9),
}

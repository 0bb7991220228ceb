"""Evaluation of a pretrained network: held-out objectives, linear probes, retrieval, and the report."""

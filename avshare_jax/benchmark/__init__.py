"""What this project's parts cost on the machine at hand: `python -m avshare_jax.benchmark PART`."""

"""Exchange with other implementations: released weights in."""

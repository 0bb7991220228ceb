"""Exchange with others: released weights in and out, and networks that run without this project."""

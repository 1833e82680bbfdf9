"""One training loop, and what it needs."""

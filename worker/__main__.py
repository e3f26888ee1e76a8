"""Entry point: `python -m worker`."""

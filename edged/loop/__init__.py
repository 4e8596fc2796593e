"""The engine loop: where a frame and a watt meet. Only `daemon.py` builds it."""

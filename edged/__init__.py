"""edged: camera inference within a deadline and an energy budget."""

__version__ = "0.1.0"

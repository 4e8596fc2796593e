"""A device of numbers alone, to try the governor against. Pure: no I/O, no clock; the same seed gives the same run."""

"""The decision: pure, deterministic, without any I/O."""

"""Measuring a device: latency and watts of each engine."""

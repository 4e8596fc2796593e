"""Benchmarks: every figure is a ratio of two sides measured alternately in one run, or an amount counted in it."""

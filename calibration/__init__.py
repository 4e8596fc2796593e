"""Offline work on a model: prune, quantise, halve, measure, package. Needs the extra `edged[calibration]`."""

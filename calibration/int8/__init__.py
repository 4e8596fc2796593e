"""INT8: calibration ranges, where Q/DQ pairs go, writing and verifying the files."""

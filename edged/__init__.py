"""edged: camera inference within a deadline and an energy budget."""

import os

__version__ = "0.1.0"

# Before ONNX Runtime is imported: from 1.31 on it numbers the device in ~/.cache and reports to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

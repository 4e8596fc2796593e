"""For other programs: the check of a Q/DQ graph of any origin, `verify_qdq(model, target)`; see `int8/verify.py`."""

from edged_calibration.int8.verify import Problem, verify_qdq

__all__ = ["Problem", "verify_qdq"]

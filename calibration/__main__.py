"""`python -m edged_calibration` is `edged-calibrate`."""

import sys

from edged_calibration.cli import main

sys.exit(main())

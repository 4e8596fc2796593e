"""`python -m calibration` is `edged-calibrate`."""

import sys

from calibration.cli import main

sys.exit(main())

"""``python -m photochanger.cli``."""

import sys

from photochanger.cli import main

sys.exit(main())

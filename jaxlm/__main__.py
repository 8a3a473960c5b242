"""``python -m jaxlm`` is ``jaxlm``."""

import sys

from jaxlm.run.cli import main

sys.exit(main())

"""Makes `python -m langchain_safeguard.cli` the command."""

import sys

from langchain_safeguard.cli.main import main

sys.exit(main())

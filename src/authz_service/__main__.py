"""`python -m authz_service`: the command line."""

import sys

from authz_service.cli import main

if __name__ == "__main__":
    sys.exit(main())

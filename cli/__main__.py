"""`python -m labelmerge.cli` is the command `labelmerge`."""

from .entry import main

main()

"""`python -m labelmerge.cli` is the command `labelmerge`."""

from .main import main

main()

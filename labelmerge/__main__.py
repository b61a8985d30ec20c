"""`python -m labelmerge`: the command, where its script is not on the path."""

from importlib import import_module

import_module("labelmerge.cli.entry").main()

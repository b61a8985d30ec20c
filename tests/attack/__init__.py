"""Every artefact, damaged in every way that chance finds: `python -m tests.attack --help`.

A command that is given a damaged file must say so in one line or do the right thing. It fails here on a traceback, on
hanging, on more than a gigabyte, on control characters in what it prints, and on success with what can't be right.
"""

"""The command line: `hiss`."""

from hiss.cli.main import main

__all__ = ["main"]

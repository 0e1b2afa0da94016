"""`python -m hiss.cli`: the command line without the installed script."""

from hiss.cli.main import main

main()

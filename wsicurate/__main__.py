"""``python -m wsicurate``: the command."""

from wsicurate.cli import main

main()

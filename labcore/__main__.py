"""``python -m labcore`` is the ``labcore`` command."""

from labcore.cli import main

main()

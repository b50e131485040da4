"""``python -m pgherd``: the same as the command."""

from .cli.main import run

run()

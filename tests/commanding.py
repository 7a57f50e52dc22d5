"""The command line, called in the process of a test."""

from cliplab.cli.main import main


def status_of(command: str) -> int:
    """The exit status of ``cliplab`` with these words."""
    try:
        return main(command.split())
    except SystemExit as stop:
        return int(stop.code or 0)

"""`python -m corral`: the same as the `corral` command."""

from corral.cli.main import entry

if __name__ == "__main__":
    entry()

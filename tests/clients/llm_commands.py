"""Runs commands of `llm`, given as JSON on standard input, one after the other in one process, which saves a second of
imports for each: a list of lists of words. Prints the exit code, output and error output of each as JSON."""

from __future__ import annotations

import json
import sys

from click.testing import CliRunner
from llm.cli import cli

runner = CliRunner()
runner.invoke(cli, ["logs", "off"])  # else each command writes a database
done = [runner.invoke(cli, words) for words in json.load(sys.stdin)]
json.dump([[each.exit_code, each.stdout, each.stderr or str(each.exception or "")] for each in done], sys.stdout)

"""benchmarks/malloc.py runs, and says what it measured."""

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "malloc.py"


def run(*arguments, **options):
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="tunes the GNU C library")
def test_a_row(offline_environment):
    shown = run("karate/graphmae", "--epochs", "2", "--rounds", "1", env=offline_environment)
    assert shown.returncode == 0, shown.stderr
    heads, _, row = (line.strip("| ").split(" | ") for line in shown.stdout.splitlines())
    assert len(heads) == len(row) - 1  # the first has no name
    name, *numbers, grows = row
    assert name == "karate/graphmae"
    assert all(float(number) > 0 for number in numbers)
    assert re.fullmatch(r"[+-]\d+ \([+-]\d+%\)", grows)


def test_one_epoch_is_none(offline_environment):
    shown = run("--epochs", "1", env=offline_environment)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "give 2 or more" in shown.stderr


def test_what_cannot_be_timed_is_one_line(offline_environment):
    shown = run("nope", env=offline_environment)
    assert (shown.returncode, shown.stdout, "give DATA/RECIPE" in shown.stderr) == (2, "", True)
    shown = run("karate/nope", env=offline_environment)
    assert (shown.returncode, "karate/nope: " in shown.stderr, "Traceback" in shown.stderr) == (1, True, False)

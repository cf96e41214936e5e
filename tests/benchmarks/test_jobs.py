"""Processes that end when they are told to."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks"
IN_C = """
import ctypes, jobs, os, signal, time
jobs.begin()
ctypes.CFUNCTYPE(None)(lambda: os.kill(os.getpid(), signal.SIGTERM))()
time.sleep(60)
"""


def test_a_signal_ends_a_process_where_c_has_called_python(offline_environment):
    """There an exception of the handler goes nowhere."""
    environment = {**offline_environment, "PYTHONPATH": str(FOLDER)}
    ran = subprocess.run([sys.executable, "-c", IN_C], env=environment, capture_output=True, text=True, timeout=50)
    assert (ran.returncode, ran.stderr) == (143, "")

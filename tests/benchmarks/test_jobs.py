"""Processes that end when they are told to."""

import subprocess
import sys
import time
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


POOL = """
import jobs, os, time

def work(item, folder):
    open(f"{folder}/{os.getpid()}", "w").close()
    time.sleep(300)

if __name__ == "__main__":
    list(jobs.done(work, [0, 1], FOLDER, jobs=2, fits=lambda item: True))
"""


def test_processes_of_a_killed_pool_end(tmp_path, offline_environment):
    marks = tmp_path / "marks"
    marks.mkdir()
    (tmp_path / "pool.py").write_text(POOL.replace("FOLDER", repr(str(marks))))
    environment = {**offline_environment, "PYTHONPATH": str(FOLDER)}
    command = [sys.executable, str(tmp_path / "pool.py")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as pool:
        begin = time.monotonic()
        while len(list(marks.iterdir())) < 2:
            assert time.monotonic() - begin < 50
            time.sleep(0.1)
        pool.kill()
        pool.communicate(timeout=30)  # that ends when nobody has its output any more

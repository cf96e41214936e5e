"""A side of a comparison in a process of its own, so that its malloc, precision and threads are its own.

The parent says how many steps are to be made, the process makes them and says how long each took; until it is asked
again it waits on a pipe, which takes no core. See speed.py.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from structmae.errors import StructmaeError

WAIT = 30.0  # seconds that a process gets to end by itself


class Stop(Exception):
    """The parent wants no more steps."""


class Turns:
    """What a side calls after each step: it holds the step's end, and when a turn is over it answers and waits.

    The first step of a turn is not measured: it wakes threads, and takes what was prepared while the process waited.
    `moved` is how many bytes a step must move, as far as its side knows (see speed_floor.py).
    """

    def __init__(self, commands: IO[str], replies: IO[str]):
        self.commands, self.replies, self.moved = commands, replies, 0
        self._left, self._stamps, self._count = 1, list[float](), None

    def __call__(self) -> None:
        """Raises Stop."""
        self._stamps.append(time.perf_counter())
        self._left -= 1
        if self._left:
            return
        if self._count is None:
            answer: dict[str, Any] = {"ms": [(end - begin) * 1e3 for begin, end in pairwise(self._stamps)]}
        else:
            answer, self._count = self._count.close(), None
        self.say({**answer, "moved": self.moved, "peak_memory": peak_memory()})
        command = json.loads(self.commands.readline() or '{"do": "stop"}')
        if command["do"] == "stop":
            raise Stop
        if command["do"] == "count":
            from speed_floor import Count

            self._count = Count(command["precision"])
        self._left, self._stamps = command["steps"] + 1 if command["do"] == "steps" else 1, []

    def say(self, answer: Mapping[str, Any]) -> None:
        self.replies.write(json.dumps(answer) + "\n")
        self.replies.flush()


def peak_memory() -> int | None:
    from torch import device

    from structmae.pretraining import peak_memory

    return peak_memory(device("cpu"))


class Worker:
    """The parent's end: `with Worker(...) as side: side.ready(); side.turn(5)`. Raises StructmaeError where the process
    fails."""

    def __init__(self, module: str, function: str, about: Mapping[str, Any], threads: int):
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115, closed by __exit__
        spec = json.dumps({"module": module, "function": function, "about": about, "threads": threads})
        command = [sys.executable, "-c", "import speed_worker; speed_worker.main()", spec]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors}
        self.process = subprocess.Popen(command, text=True, encoding="utf-8", env=_environment(), **pipes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError), self.process.stdin:  # its end is a stop, too
            self.process.stdin.write('{"do": "stop"}\n')
        try:
            self.process.wait(WAIT if kind is None else 0.1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def ready(self) -> None:
        """Comes back once the first step is made, which compiles. To be called first."""
        self._hear()

    def turn(self, steps: int) -> dict[str, Any]:
        """`ms` of each step, and `peak_memory` so far."""
        return self._ask({"do": "steps", "steps": steps})

    def count(self, precision: str) -> dict[str, Any]:
        """The operations of one step, and at which rate its products run: see speed_floor.py."""
        return self._ask({"do": "count", "precision": precision})

    def _ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        with suppress(OSError):  # it has died, and says why
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            raise StructmaeError(answer["error"])
        return answer

    def _last_words(self) -> str:
        self.process.wait()
        self.errors.seek(0)
        said = self.errors.read().strip().splitlines()
        return said[-1] if said else f"the process ended with exit code {self.process.returncode}"


def _environment() -> dict[str, str]:
    """The person's own, with these scripts and the structmae that the parent has."""
    import structmae

    here = str(Path(__file__).resolve().parent), str(Path(structmae.__file__).parents[1])
    paths = os.pathsep.join(filter(None, [*here, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": paths, "PYTHONWARNINGS": "ignore"}


def main() -> None:
    """The process's end: `function(turns, threads, **about)` of `module`, which goes on until it is stopped."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no reply
    spec = json.loads(sys.argv[1])
    turns = Turns(sys.stdin, replies)
    try:
        getattr(import_module(spec["module"]), spec["function"])(turns, spec["threads"], **spec["about"])
    except Stop:
        pass
    except StructmaeError as error:
        turns.say({"error": str(error)})


def call(module: str, function: str, **about: Any) -> Any:
    """What `function(**about)` of `module` gives, in a process of its own that shows its progress on stderr. Raises
    StructmaeError where it fails."""
    spec = json.dumps({"module": module, "function": function, "about": about})
    command = [sys.executable, "-c", "import speed_worker; speed_worker.answer()", spec]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=_environment(), check=False)
    found = json.loads(done.stdout) if done.stdout else {"error": f"it ended with exit code {done.returncode}"}
    if "error" in found:
        raise StructmaeError(found["error"])
    return found["result"]


def answer() -> None:
    """The process's end of `call`."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    spec = json.loads(sys.argv[1])
    try:
        found = {"result": getattr(import_module(spec["module"]), spec["function"])(**spec["about"])}
    except StructmaeError as error:
        found = {"error": str(error)}
    out.write(json.dumps(found))
    out.close()

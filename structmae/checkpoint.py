"""The files of a run. JSON, JSON lines and safetensors; the resume state is torch's, read with `weights_only=True`.

    config.json         schema, versions, resolved recipe, what the tokenizer learnt, fingerprint of the data
    metrics.jsonl       one line an epoch
    resume.pt           weights, optimizer, generators and position, written every `train.save_every` epochs; removed
                        once the run has its result
    model.safetensors   the weights, once trained
    result.json         what `pretrain --json` prints
    picture.png         input, what was hidden, and how it was rebuilt (with matplotlib)

Each file but metrics.jsonl is written beside its place and moved there, so none is ever half-written.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from structmae.errors import StructmaeError

SCHEMA = 4


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to that becomes `path` when the block ends well, and is removed when it does not."""
    beside = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    with replacing(path) as beside:
        beside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Raises StructmaeError for a file that is missing or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StructmaeError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise StructmaeError(f"{path} is not JSON ({error}): the run's folder is damaged") from None


def save_weights(path: Path, model: nn.Module) -> None:
    from safetensors.torch import save

    with replacing(path) as beside:  # bytes, since the library's own writer makes files that only their owner reads
        beside.write_bytes(save({name: value.cpu().contiguous() for name, value in model.state_dict().items()}))


def load_weights(path: Path, model: nn.Module) -> None:
    """Raises StructmaeError for a file that is missing, damaged or of another model."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        model.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise StructmaeError(
            f"{path} is not there: the run has not finished; go on with the command that began it and "
            f"--out {path.parent} --resume"
        ) from None
    except (SafetensorError, OSError) as error:
        raise StructmaeError(f"{path} cannot be read: {error}") from None
    except RuntimeError as error:
        raise StructmaeError(f"{path} holds another model than its config.json: {str(error).splitlines()[0]}") from None


class Checkpoint:
    """Resume state and metrics of the training loop, in the run's folder."""

    def __init__(self, folder: Path):
        self.state, self.metrics = folder / "resume.pt", folder / "metrics.jsonl"

    def save(self, state: dict[str, Any]) -> None:
        with replacing(self.state) as beside:
            torch.save(state, beside)

    def load(self) -> dict[str, Any] | None:
        """The last state saved, or None; metrics.jsonl is cut back to its epoch."""
        state: dict[str, Any] | None = None
        if self.state.exists():
            try:
                state = torch.load(self.state, weights_only=True)
            except (OSError, RuntimeError, EOFError, ValueError, LookupError) as error:
                reason = (str(error) or type(error).__name__).splitlines()[0]
                raise StructmaeError(f"{self.state} cannot be read: {reason}") from None
        self._cut(0 if state is None else int(state["position"]["epoch"]))
        return state

    def append(self, line: dict[str, Any]) -> None:
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _cut(self, epochs: int) -> None:
        if self.metrics.exists():
            lines = self.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
            with replacing(self.metrics) as beside:
                beside.write_text("".join(lines[:epochs]), encoding="utf-8")


@contextmanager
def unless_failed(folder: Path | None, new: bool) -> Iterator[None]:
    """Removes a `new` folder where the work in it fails before there is anything to go on with."""
    try:
        yield
    except StructmaeError:
        if folder is not None and new and not any(folder.rglob("resume.pt")) and not any(folder.glob("*.safetensors")):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def claim(folder: Path, write: Callable[[Path], None]) -> None:
    """Make `folder` and write its first files. Raises StructmaeError where it can't be done; then nothing stays."""
    above = [parent for parent in folder.parents if not parent.exists()]
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        beside.mkdir(parents=True)
        write(beside)
        beside.rename(folder)  # at once: a folder without its config.json is never seen
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        for parent in above:
            with suppress(OSError):
                parent.rmdir()
        raise StructmaeError(f"--out {folder} cannot be written: {error.strerror or error}") from None

"""Pictures of what a run hides and rebuilds, of any modality."""

import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from structmae.checkpoint import replacing
from structmae.errors import UsageError
from structmae.report.base import Scene, pyplot

if TYPE_CHECKING:
    from structmae.run import Run

# The modules that have the `scene` of each modality.
SCENES = {
    "series": "structmae.report.series",
    "image": "structmae.report.images",
    "text": "structmae.report.text",
    "graph": "structmae.report.graphs",
}
FILE = "picture.png"


def plot_reconstruction(
    run: "Run", data: Any = None, *, start: int | None = None, channel: int | str = 0, ax: Any = None
) -> Any:
    """Draw some of the data as the model sees it: the input, what is left of it once tokens are hidden, and how the
    hidden ones are rebuilt. Tokens are hidden as in training, by the draw that is kept for validation.

    - Series: one window as a line, what is hidden shaded. Of a spectrogram there are three images.
    - Images: six of them, in three rows for each map. Of a causal model the last row has each pixel's most likely
      colour after the true ones before it.
    - Text: a window or two in three blocks, the pieces that are rebuilt in colours that say which are right.
    - Graphs: features of hidden nodes in three heat maps; where edges are hidden, three adjacency matrices of some
      nodes near each other, the last with the probabilities of hidden edges and of as many pairs that are none.

    start: the first row of the window; of recordings, images, windows of text and graphs the number of the first one,
    of a single graph the node to begin with. Without it, test data. channel: of series, its place or its name. ax: axes
    to draw on, as many as there are; None makes a figure. Returns the axes.

    Raises UsageError for a run that is fine-tuned, and a start or channel that does not exist; StructmaeError without
    matplotlib.
    """
    figures = pyplot()
    made = _scene(run, data, start, channel)
    if ax is None:
        size: dict[str, Any] = {"figsize": made.size, "layout": "constrained", "sharex": made.shared}
        ax = figures.subplots(made.rows, made.columns, **size)[1]
    if np.size(ax) != made.rows * made.columns:
        raise UsageError(f"ax: {np.size(ax)} axes; {made.needs}")
    made.draw(np.atleast_1d(ax).ravel())
    return ax


def save_picture(run: "Run", folder: Path, source: Any = None) -> Path:
    """The picture of a run in its folder; `source` has the run's own data. No window is opened, and pyplot's figures
    stay as they are. Raises StructmaeError without matplotlib."""
    pyplot()
    figure: Any = import_module("matplotlib.figure")
    made = _scene(run, None, None, 0, source)
    page = figure.Figure(figsize=made.size, layout="constrained")
    made.draw(page.subplots(made.rows, made.columns, squeeze=False, sharex=made.shared).ravel())
    path = folder / FILE
    with warnings.catch_warnings(), replacing(path) as beside:
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font lacks
        page.savefig(beside, format="png", dpi=120, bbox_inches="tight")
    return path


def _scene(run: "Run", data: Any, start: int | None, channel: int | str, source: Any = None) -> Scene:
    modality = run.recipe.modality
    if not hasattr(run.model, "rebuild"):
        raise UsageError(
            "plot_reconstruction: a fine-tuned run has no decoder; give the pre-trained run it was made of"
        )
    if modality not in SCENES:
        raise UsageError(
            f"plot_reconstruction: nobody has said how {modality} data looks; there are {', '.join(SCENES)}"
        )
    if modality != "series" and channel != 0:
        raise UsageError(f"channel={channel!r} is of series, and this run is of {modality} data: leave it out")
    found = run.data(data)
    source = run.source(found, anew=False) if source is None else source
    scene: Scene = import_module(SCENES[modality]).scene(run, found, source, start, channel)
    return scene

"""Pictures of text show the pieces that the model was given, and those that it says."""

import numpy as np
import pytest
from small_pictures import DOCUMENTS, text_settings, trained

from structmae.report.base import KEPT, RANDOM, RIGHT, TRUE, WRONG

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


def cells(ax):
    """Pieces of a block in reading order: text, colour."""
    texts = [text for text in ax.texts if text.get_fontfamily() == ["DejaVu Sans Mono"]]
    return [(text.get_text(), text.get_color()) for text in texts]


def test_text_in_three_blocks():
    run = trained(DOCUMENTS, "bert", **text_settings(), **{"mask.ratio": 0.4, "mask.random": 0.2, "mask.keep": 0.2})
    axes = run.plot_reconstruction(start=2)
    given, seen, rebuilt = (cells(ax) for ax in axes)
    source = run.source(run.data())
    first, many = int(source.starts[2]), int(source.lengths[2])
    text = source.tokenizer.decode(source.flat[first : first + many].tolist())
    assert "".join(piece for piece, _ in given) == text.replace(" ", "\u00b7").replace("\n", "\u21b5")
    assert len(seen) == len(rebuilt) == many
    boxes = [place for place, (piece, _) in enumerate(seen) if set(piece) == {"_"}]
    others = [place for place, (_, colour) in enumerate(seen) if colour == RANDOM]
    kept = [place for place, (_, colour) in enumerate(seen) if colour == KEPT]
    told = [place for place, (_, colour) in enumerate(rebuilt) if colour != TRUE]
    assert min(len(boxes), len(others), len(kept)) > 0
    assert sorted(boxes + others + kept) == told
    assert abs(len(told) - 0.4 * many) <= 1
    for place, (piece, colour) in enumerate(rebuilt):
        assert colour in ((RIGHT, WRONG) if place in told else (TRUE,))
        if colour == RIGHT:
            assert piece == given[place][0]
    assert all(seen[place] == given[place] for place in range(many) if place not in told)
    two = run.plot_reconstruction()
    assert len(cells(two[0])) > many


def test_letters_that_the_font_lacks_and_a_causal_model():
    strange = [f"{document} \u65e5\u672c $x_$ \t \U0001f600 e\u0301" for document in DOCUMENTS]
    order = {"encoder.attention": "causal", "encoder.shift": True}
    order |= {"mask.ratio": 1.0, "mask.keep": 1.0, "mask.random": 0}
    run = trained(strange, "bert", **text_settings(), **order)
    axes = run.plot_reconstruction()
    axes[0].figure.canvas.draw()  # no warning of a glyph
    assert "after the true ones before it" in axes[0].get_title(loc="left")
    given, seen = cells(axes[0]), cells(axes[1])
    half = [set(piece) == {"_"} for piece, _ in seen]
    assert 0.3 < np.mean(half) < 0.7
    assert seen[0] == given[0]
    shown = {letter for ax in run.plot_reconstruction(start=0) for piece, _ in cells(ax) for letter in piece}
    assert not shown & set("\u65e5\u672c\u0301\t\n \U0001f600")

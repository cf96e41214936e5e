"""Whether a method can be told from the best one: a paired test, over what both were scored on."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import results

LEVEL = 0.05  # of p
LEAST = 3  # seeds in common, where those are the pairs
SAID = (
    f"a paired t-test does not tell it from the best (p >= {LEVEL}): over the same test items, each one's share of "
    f"seeds that are right, or over the same draws of few labels, each one's mean over seeds, or where items or draws "
    f"differ or are not known over the same seeds, {LEAST} at least"
)


def tied(some: Sequence[results.Line], best: Sequence[results.Line], *, drawn: bool) -> bool | None:
    """Whether no test tells these lines, those of a method's seeds, from the best ones; None where there is none for
    lack of seeds. `drawn`: each seed has test items of its own."""
    pairs = None if drawn else _items(some, best) or _draws(some, best)
    if pairs is None:
        others = {line["seed"]: line["value"] for line in best}
        pairs = [(line["value"], others[line["seed"]]) for line in some if line["seed"] in others]
        if len(pairs) < LEAST:
            return None
    return _p(pairs) >= LEVEL


def _items(some: Sequence[results.Line], best: Sequence[results.Line]) -> list[tuple[float, float]] | None:
    """Of each test item, the share of seeds at which each method is right; None where that was not kept."""
    shares = [_shares(lines) for lines in (some, best)]
    if shares[0] is None or shares[1] is None or len(shares[0]) != len(shares[1]):
        return None
    return list(zip(*shares, strict=True))


def _draws(some: Sequence[results.Line], best: Sequence[results.Line]) -> list[tuple[float, float]] | None:
    """Of each draw of few labels the mean over seeds of each method; None where that was not kept, or all draws are
    one, of all labels that there are."""
    draws = [[line.get("draws") for line in lines] for lines in (some, best)]
    if not all(all(each) for each in draws) or len({len(one) for each in draws for one in each}) != 1:
        return None
    means = [[fmean(value) for value in zip(*each, strict=True)] for each in draws]
    return None if any(len(set(each)) == 1 for each in means) else list(zip(*means, strict=True))


def _shares(lines: Sequence[results.Line]) -> list[float] | None:
    if not lines or not all(line.get("right") for line in lines):
        return None
    bits = [unpacked(line["right"], line["n"]) for line in lines]
    return [fmean(item) for item in zip(*bits, strict=True)] if len({len(each) for each in bits}) == 1 else None


def unpacked(right: str, n: int) -> list[int]:
    """The bits that `structmae.evaluate.folds.packed` packed."""
    return [int(bit) for byte in bytes.fromhex(right) for bit in f"{byte:08b}"][:n]


def _p(pairs: Sequence[tuple[float, float]]) -> float:
    """Two-sided; 1 where no pair differs."""
    from scipy.stats import ttest_rel

    apart = [a - b for a, b in pairs]
    if not any(apart):
        return 1.0
    if max(apart) - min(apart) < 1e-9:  # all differ by the same, which scipy warns of
        return 0.0
    found: Any = ttest_rel(*zip(*pairs, strict=True))
    return float(found.pvalue)

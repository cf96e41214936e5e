"""A budget over the strata of an item: what strategy "dirichlet" leaves visible in each (a modality, a sensor).

Of the n units of an item exactly V = n - count(ratio, n) stay visible. They are shared out over its strata by a
symmetric Dirichlet distribution: independent gamma variates over their sum. The variate of a stratum is the inverse
distribution function at u = (rank + 1/2) / 2**32, whose rank has purpose BUDGET and the stratum's number within the
item (of those that have units, in their order) for a local position. So it is a function of seed, stream, item id,
visit and number, but for the last bits that another SciPy may give.
"""
# mypy: allow-untyped-defs

from typing import Any

import numpy as np
from numba import njit

from structmae.masking import kernels
from structmae.masking.layout import Ints, Units
from structmae.masking.strategies import Spec, count


def hidden(units: Units, ids: Ints, spec: Spec, words: Any) -> Ints:
    """(S,) how many units of each stratum are hidden. ids (I,): the names of the items; words: as Key.words."""
    from scipy.special import gammaincinv, gammaln  # scikit-learn needs it; here, for nothing else of masking does

    strata = units.item_strata
    item = np.repeat(np.arange(len(ids)), np.diff(strata))
    u = (kernels.ranks_at(ids[item], np.arange(len(item)) - strata[item], *words) + 0.5) / 2.0**32
    a = max(spec.concentration, 1e-100)  # all is one stratum's by then, and the next line has no infinity
    # Where u is so small that the variate underflows, u = x**a / gamma(a + 1) to the last bit.
    variate = gammaincinv(a, u)
    log = np.where(variate > 1e-30, np.log(np.maximum(variate, 1e-30)), (np.log(u) + gammaln(a + 1.0)) / a)
    n = np.diff(units.ptr[strata])
    visible = np.empty(len(item), np.int64)
    size: Ints = np.diff(units.ptr)
    apportion(visible, size, log, strata, n - count(spec.ratio, n))
    return size - visible


@njit(nogil=True, cache=True)
def apportion(out, size, log, strata, total):
    """out (S,) int64 <- whole numbers that sum to total[i] over strata[i]:strata[i + 1], in proportion to exp(log).

    A stratum gets size[s] at most; what it would get above goes to the others, in proportion. Of the quotas so found
    each gets the whole part, and those with the largest rests, ties in order, one more. 0 <= total <= the sum of size.
    """
    m = np.int64(0)
    for i in range(len(total)):
        m = max(m, strata[i + 1] - strata[i])
    quota, low = np.empty(m, np.float64), np.empty(m, np.float64)
    full = np.empty(m, np.uint8)
    for i in range(len(total)):
        a, m = strata[i], strata[i + 1] - strata[i]
        left = total[i]
        full[:m] = 0
        again = True
        while again:  # until none is above its size
            again = False
            top, whole = -np.inf, 0.0
            for j in range(m):
                if full[j] == 0:
                    top = max(top, log[a + j])
            for j in range(m):
                if full[j] == 0:
                    quota[j] = np.exp(log[a + j] - top)
                    whole += quota[j]
            rest = left
            for j in range(m):
                if full[j] == 0:
                    quota[j] = rest * (quota[j] / whole)
                    if quota[j] >= size[a + j]:
                        full[j] = 1
                        again = True
                        out[a + j] = size[a + j]
                        left -= size[a + j]
        for j in range(m):
            low[j] = 2.0
            if full[j] == 0:
                out[a + j] = np.int64(quota[j])
                left -= out[a + j]
                low[j] = 1.0 - (quota[j] - out[a + j])
        if left > 0:
            order = low[:m].view(np.uint64)  # positive doubles are ordered as their bits
            t = kernels.kth(order, left)
            equal = left
            for j in range(m):
                equal -= order[j] < t
            for j in range(m):
                if order[j] < t:
                    out[a + j] += 1
                elif order[j] == t and equal > 0:
                    out[a + j] += 1
                    equal -= 1

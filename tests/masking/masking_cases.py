"""Made-up items for hypothesis, and their layout."""

from hypothesis import strategies as st

from structmae.masking import Act, Spec, layout

SHARES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0])


@st.composite
def items(draw, most=6, tokens=40):
    """Items as the oracle takes them: empty, of one token, all invalid, ragged; with or without groups and strata."""
    grouped, layered, all_valid = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    made = []
    for _ in range(draw(st.integers(0, most))):
        n = draw(st.one_of(st.sampled_from([0, 1, 2, 4]), st.integers(0, tokens)))
        ids = st.lists(st.integers(-2, 8), min_size=n, max_size=n)
        made.append(
            {
                "id": draw(st.one_of(st.integers(0, 20), st.integers(0, 2**63 - 1))),
                "set": draw(st.one_of(st.integers(0, 2), st.integers(0, 2**63 - 1))),
                "valid": [True] * n if all_valid else draw(st.lists(st.booleans(), min_size=n, max_size=n)),
                "group": draw(ids) if grouped else None,
                "stratum": draw(st.lists(st.integers(-1, 2), min_size=n, max_size=n)) if layered else None,
            }
        )
    return made


@st.composite
def specs(draw):
    random = draw(SHARES)
    keep = draw(SHARES.filter(lambda k: random + k <= 1.0))
    return Spec(
        ratio=draw(st.one_of(st.sampled_from([0.0, 1.0, 0.5, 0.15, 0.75]), st.floats(0.0, 1.0))),
        act=draw(st.sampled_from(list(Act))),
        random=random,
        keep=keep,
        random_from=draw(st.sampled_from(["visible", "any"])),
        scope=draw(st.sampled_from(["item", "batch", "set"])),
    )


def layout_of(made):
    """The layout of such items; arrays that say nothing are left out, as a caller would."""

    def flat(name):
        return [x for item in made for x in item[name]]

    ptr = [0]
    for item in made:
        ptr.append(ptr[-1] + len(item["valid"]))
    valid = flat("valid")
    return layout(
        ptr,
        item_id=[item["id"] for item in made],
        valid=None if all(valid) else valid,
        group=flat("group") if made and made[0]["group"] is not None else None,
        stratum=flat("stratum") if made and made[0]["stratum"] is not None else None,
        set_id=[item["set"] for item in made],
    )

"""What the command line prints of an evaluation, for a person."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

_HEADS = {"pretrained": "pre-trained", "rocket": "minirocket"}


def table(evaluation: Mapping[str, Any]) -> str:
    """The evaluation as lines: one an arm, of forecasting one a horizon, of imputation one a kind of gaps, of
    reconstruction one a head."""
    lines = _LINES.get(evaluation["task"], _of_arms)(evaluation)
    return "\n".join([*lines, *_behind(evaluation)])


def _of_arms(evaluation: Mapping[str, Any]) -> list[str]:
    """One line an arm, then what the probe was, and of recordings the scores with few labels."""
    rows = evaluation["rows"]
    scored = f"{rows[0]['n']} scored; {evaluation['split_source']}"
    tuned = ", fine-tuned" if evaluation.get("finetuned") else ""
    lines = [f"{evaluation['task']}{tuned}, {evaluation['metric']} on {evaluation['split']} ({scored})"]
    for row in rows:
        spread = "" if row["std"] is None else f" +- {row['std']:.4f} over folds"
        lines.append(f"  {row['features'].replace('_', ' '):20s} {row['value']:.4f}{spread}")
    probes = {(row["probe"]["lr"], row["probe"]["weight_decay"]) for row in rows if "lr" in row.get("probe", {})}
    if len(probes) > 1:
        lines.append("probe: lr and weight decay of each arm chosen on validation")
    elif probes:
        lr, decay = probes.pop()
        lines.append(f"probe: lr {lr}, weight decay {decay} for every arm; --set probe.search=true tunes each")
    return [*lines, *_few_labels(evaluation.get("few_labels") or [])]


def _few_labels(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    sizes = list(dict.fromkeys(row["labels"] for row in rows))
    cells = {(row["features"], row["labels"]): f"{row['value']:.4f} +- {row['std']:.4f}" for row in rows}
    arms = list(dict.fromkeys(row["features"] for row in rows))
    body = [[arm.replace("_", " "), *(cells.get((arm, size), "") for size in sizes)] for arm in arms]
    return [
        f"with few labels a class (mean and standard deviation over {rows[0]['n']} subsets)",
        *_grid(["labels", *map(str, sizes)], body),
    ]


def _of_horizons(evaluation: Mapping[str, Any]) -> list[str]:
    """One line a horizon, then the means over horizons."""
    rows = evaluation["rows"]
    arms = [arm for arm in ("random_init", "last_value", "seasonal_naive", "nlinear") if arm in rows[0]]
    heads = ["horizon", "mse", "mae", "windows", *(_head(arm) for arm in arms)]
    body = [
        [
            str(row["horizon"]),
            _four(row["mse"]),
            _four(row["mae"]),
            str(row["n_windows"]),
            *(_four(row[a]) for a in arms),
        ]
        for row in rows
    ]
    if len(rows) > 1:
        means = [_four(fmean(row[key] for row in rows)) for key in ("mse", "mae")]
        body.append(["mean", *means, "", *(_four(fmean(row[arm] for row in rows)) for arm in arms)])
    tuned = ", fine-tuned" if evaluation.get("finetuned") else ""
    first = (
        f"{evaluation['task']}{tuned}, scaled values of the {evaluation['split']} rows ({evaluation['split_source']})"
    )
    look_backs = {row["nlinear_look_back"] for row in rows if "nlinear_look_back" in row}
    said = f"windows of {rows[0]['look_back']} rows; mse and mae are of the encoder, then the mse of the others"
    if look_backs:
        said += f"; nlinear reads {' or '.join(map(str, sorted(look_backs)))} rows, by validation"
    return [first, *_grid(heads, body), said]


def _of_gaps(evaluation: Mapping[str, Any]) -> list[str]:
    """One line a kind of gaps."""
    rows = evaluation["rows"]
    arms = [arm for arm in ("random_init", "linear", "last_value", "mean") if arm in rows[0]]
    heads = ["gaps", "hidden", "length", "mse", "mae", "values", *(_head(arm) for arm in arms)]
    body = [
        [
            row["gaps"],
            f"{row['ratio']:.0%}",
            str(row["length"]),
            _four(row["mse"]),
            _four(row["mae"]),
            str(row["n_values"]),
            *(_four(row[arm]) for arm in arms),
        ]
        for row in rows
    ]
    first = f"{evaluation['task']}, scaled values of the {evaluation['split']} rows ({evaluation['split_source']})"
    return [first, *_grid(heads, body), "mse and mae are of the encoder, then the mse of the others"]


def _of_subsets(evaluation: Mapping[str, Any]) -> list[str]:
    """Images: one line an arm, with what its vectors are like."""
    rows = evaluation["rows"]
    heads = ["features", "accuracy", "std", "validation", "rank", "spread", "centred"]
    body = [
        [
            _head(row["features"]) + (f", layer {row['layer']}" if row["layer"] else ""),
            *(_or_none(row[key], _four) for key in ("value", "std", "validation")),
            f"{row['effective_rank']:.1f}",
            f"{row['spread']:.2f}",
            f"{row['spread_centred']:.2f}",
        ]
        for row in rows
    ]
    few = rows[0]
    return [
        f"{evaluation['task']}, accuracy on {evaluation['split']} ({few['n']} scored; {evaluation['split_source']})",
        *_grid(heads, body),
        f"probe: {few['labels']} labels a class; mean and standard deviation over {few['subsets']} draws of them",
        "rank: effective rank of the vectors; spread: 1 where they point in all directions alike, 0 where in one; "
        "centred: less their mean",
    ]


def _of_heads(evaluation: Mapping[str, Any]) -> list[str]:
    """Reconstruction: one line a head, then what there is to say of some heads alone."""
    rows = evaluation["rows"]
    arms = ["random_init", *(arm for arm in _SIMPLE if any(arm in row for row in rows))]
    heads = ["head", "score", "scored", "pre-trained", *(_head(arm) for arm in arms)]
    body = [
        [
            row["head"],
            row["metric"],
            str(row["n"]),
            _four(row["value"]),
            *(_or_none(row.get(arm), _four) for arm in arms),
        ]
        for row in rows
    ]
    lines = [
        f"{evaluation['task']}, hidden {evaluation['split']} items ({evaluation['split_source']})",
        *_grid(heads, body),
    ]
    for row in rows:
        if isinstance(bits := row.get("bits"), Mapping):
            lines.append(f"{row['head']}: bits {_list(bits)}")
        if masked := row.get("masked"):
            where = {arm: value for arm, value in masked.items() if arm != "n"}
            lines.append(f"{row['head']}: accuracy at the {masked['n']} places where a mask stands {_list(where)}")
        if len(shares := row.get("shares", {})) > 1:
            said = ", ".join(f"{share:.2%} {act}" for act, share in shares.items())
            lines.append(f"{row['head']}: of the scored of all items {said}")
    if maps := [row for row in rows if "alone" in row]:
        cases = ["alone", "together", "from_others"]
        lines.append("error of a map without the others, with them (the same hidden), and from the others alone")
        lines += _grid(
            ["map", *map(_head, cases)], [[row["head"], *(_four(row[case]) for case in cases)] for row in maps]
        )
    return lines


def _of_clusters(evaluation: Mapping[str, Any]) -> list[str]:
    """Clustering: one line an arm."""
    rows = evaluation["rows"]
    body = [
        [
            _head(row["features"]),
            _four(row["value"]),
            _four(row["nmi"]),
            str(row["clusters"]),
            f"{row['smallest_share']:.1%}",
            f"{row['occupancy'][0]:.1%}",
        ]
        for row in rows
    ]
    first = f"{evaluation['task']}, {rows[0]['n']} items ({evaluation['split_source']})"
    lines = [first, *_grid(["features", "ari", "nmi", "clusters", "smallest", "largest"], body)]
    assigned = any(row["features"] == "assigned" for row in rows)
    return [*lines, "by k-means; assigned: by the clustering term itself" if assigned else "by k-means"]


_SIMPLE = ("position_mean", "unigram", "bigram", "previous", "position")
_LINES = {
    "forecasting": _of_horizons,
    "imputation": _of_gaps,
    "image_classification": _of_subsets,
    "reconstruction": _of_heads,
    "clustering": _of_clusters,
}


def _less(one: float, other: float, sign: int) -> bool:
    """Whether `one` is behind by more than rounding."""
    return sign * (other - one) > 1e-6 * abs(one)


def _behind(evaluation: Mapping[str, Any]) -> list[str]:
    """What the encoder is behind, if anything: of several horizons or kinds of gaps in their mean, of each head."""
    rows = evaluation["rows"]
    if evaluation["task"] == "reconstruction":
        # What another view says is no yardstick before training, when it says next to nothing.
        own = [row for row in rows if row["metric"] != "loss"]
        return [line for row in own for line in _behind_of(_arms(row), row["better"], f"at {row['head']}")]
    values = {row["features"]: row["value"] for row in rows if "features" in row and row["features"] != "assigned"}
    if not values:
        scored = ("random_init", "last_value", "seasonal_naive", "nlinear", "linear", "mean")
        values = {arm: evaluation[arm] for arm in ("pretrained", *scored) if arm in evaluation}
    mean = ", on average" if "features" not in rows[0] and len(rows) > 1 else ""
    return _behind_of(values, evaluation["better"], f"here{mean}")


def _arms(row: Mapping[str, Any]) -> dict[str, float]:
    """The scores in the row of a head."""
    return {"pretrained": row["value"], **{arm: row[arm] for arm in ("random_init", *_SIMPLE) if arm in row}}


def _behind_of(values: Mapping[str, float], better: str, where: str) -> list[str]:
    """A line on what has a better score than the encoder, where anything has."""
    sign = -1 if better == "lower" else 1
    ahead = [arm for arm, value in values.items() if arm != "pretrained" and _less(values["pretrained"], value, sign)]
    return [f"the pre-trained encoder is behind {' and '.join(map(_head, ahead))} {where}"] if ahead else []


def _head(arm: str) -> str:
    return _HEADS.get(arm, arm).replace("_", " ")


def _four(value: float) -> str:
    return f"{value:.4f}"


def _or_none(value: float | None, shown: Callable[[float], str]) -> str:
    return "" if value is None else shown(value)


def _list(values: Mapping[str, float]) -> str:
    return ", ".join(f"{_four(value)} {_head(arm)}" for arm, value in values.items())


def _grid(heads: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Lines with a column under each head: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *body, strict=True)]
    return [
        "  " + "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in (heads, *body)
    ]

"""What the command line prints of an evaluation, for a person."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

_HEADS = {"pretrained": "pre-trained", "rocket": "minirocket"}


def table(evaluation: Mapping[str, Any]) -> str:
    """The evaluation as lines: one an arm, of forecasting one a horizon, of imputation one a kind of gaps."""
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


_LINES = {"forecasting": _of_horizons, "imputation": _of_gaps}


def _less(one: float, other: float, sign: int) -> bool:
    """Whether `one` is behind by more than rounding."""
    return sign * (other - one) > 1e-6 * abs(one)


def _behind(evaluation: Mapping[str, Any]) -> list[str]:
    """What the encoder is behind, if anything: of several horizons or kinds of gaps in their mean."""
    rows = evaluation["rows"]
    values = {row["features"]: row["value"] for row in rows if "features" in row}
    if not values:
        scored = ("random_init", "last_value", "seasonal_naive", "nlinear", "linear", "mean")
        values = {arm: evaluation[arm] for arm in ("pretrained", *scored) if arm in evaluation}
    sign = -1 if evaluation["better"] == "lower" else 1
    better = [arm for arm, value in values.items() if arm != "pretrained" and _less(values["pretrained"], value, sign)]
    if not better:
        return []
    mean = ", on average" if "features" not in rows[0] and len(rows) > 1 else ""
    return [f"the pre-trained encoder is behind {' and '.join(_head(arm) for arm in better)} here{mean}"]


def _head(arm: str) -> str:
    return _HEADS.get(arm, arm).replace("_", " ")


def _four(value: float) -> str:
    return f"{value:.4f}"


def _grid(heads: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Lines with a column under each head: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *body, strict=True)]
    return [
        "  " + "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in (heads, *body)
    ]

from structmae.cli_tables import table

ROW = {"horizon": 6, "look_back": 48, "mse": 0.5, "mae": 0.4, "n_windows": 90, "random_init": 0.6, "last_value": 0.45}
FORECAST = {
    "task": "forecasting",
    "metric": "mse",
    "better": "lower",
    "split": "test",
    "split_source": "in time order",
    "pretrained": 0.75,
    "random_init": 0.7,
    "last_value": 0.8,
    "rows": [ROW, {**ROW, "horizon": 12, "mse": 1.0, "random_init": 0.8, "last_value": 1.15}],
}


def test_horizons_then_their_means_then_what_is_better():
    lines = table(FORECAST).splitlines()
    assert [line.split() for line in lines[2:5]] == [
        ["6", "0.5000", "0.4000", "90", "0.6000", "0.4500"],
        ["12", "1.0000", "0.4000", "90", "0.8000", "1.1500"],
        ["mean", "0.7500", "0.4000", "0.7000", "0.8000"],
    ]
    assert len({len(line) for line in lines[1:5]}) == 1
    assert lines[-1] == "the pre-trained encoder is behind random init here, on average"
    one = table(
        {**FORECAST, "rows": [ROW], "pretrained": 0.5, "random_init": 0.6, "last_value": 0.45, "finetuned": True}
    )
    assert "mean" not in one
    assert one.splitlines()[0] == "forecasting, fine-tuned, scaled values of the test rows (in time order)"
    assert one.splitlines()[-1] == "the pre-trained encoder is behind last value here"


def test_arms_and_few_labels():
    def row(arm, value):
        return {"features": arm, "value": value, "validation": None, "std": None, "n": 30}

    def few(arm, labels, value):
        return {"features": arm, "labels": labels, "value": value, "std": 0.05, "n": 5}

    evaluation = {
        **FORECAST,
        "task": "classification",
        "metric": "accuracy",
        "better": "higher",
        "rows": [row("pretrained", 0.9), row("random_init", 0.8), row("rocket", 0.95)],
        "few_labels": [few("pretrained", 1, 0.5), few("pretrained", 5, 0.7), few("random_init", 1, 0.4)],
    }
    lines = table(evaluation).splitlines()
    assert lines[0] == "classification, accuracy on test (30 scored; in time order)"
    assert [line.split()[-1] for line in lines[1:4]] == ["0.9000", "0.8000", "0.9500"]
    assert lines[5].split() == ["labels", "1", "5"]
    assert lines[6].split() == ["pretrained", "0.5000", "+-", "0.0500", "0.7000", "+-", "0.0500"]
    assert lines[7].split() == ["random", "init", "0.4000", "+-", "0.0500"]
    assert lines[-1] == "the pre-trained encoder is behind minirocket here"

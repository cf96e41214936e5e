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


def test_images_with_what_their_vectors_are_like():
    row = {
        "features": "pretrained", "value": 0.9, "validation": 0.8, "std": 0.01, "n": 50, "labels": 10, "subsets": 5,
        "layer": 3, "effective_rank": 12.34, "spread": 0.5, "spread_centred": 0.9,
    }  # fmt: skip
    raw = {**row, "features": "raw_features", "value": 0.95, "std": None, "validation": None, "layer": None}
    evaluation = {
        **FORECAST,
        "task": "image_classification",
        "metric": "accuracy",
        "better": "higher",
        "rows": [row, raw],
    }
    lines = table(evaluation).splitlines()
    assert lines[0] == "image_classification, accuracy on test (50 scored; in time order)"
    assert lines[2].split() == ["pre-trained,", "layer", "3", "0.9000", "0.0100", "0.8000", "12.3", "0.50", "0.90"]
    assert lines[3].split() == ["raw", "features", "0.9500", "12.3", "0.50", "0.90"]
    assert "10 labels a class; mean and standard deviation over 5 draws" in lines[4]
    assert lines[-1] == "the pre-trained encoder is behind raw features here"


def test_heads_each_with_what_stands_beside_it():
    values = {
        "head": "pixels", "target": "values", "metric": "mse", "better": "lower", "value": 0.5, "random_init": 1.1,
        "position_mean": 0.4, "n": 99, "alone": 0.6, "together": 0.5, "from_others": 0.7,
    }  # fmt: skip
    ids = {
        "head": "pieces", "target": "ids", "metric": "accuracy", "better": "higher", "value": 0.3, "random_init": 0.0,
        "unigram": 0.1, "bigram": 0.4, "n": 20, "bits": {"pretrained": 5.0, "bigram": 6.0},
        "shares": {"token": 0.8, "keep": 0.2}, "masked": {"pretrained": 0.2, "bigram": 0.25, "n": 16},
    }  # fmt: skip
    latent = {
        "head": "features", "target": "latent", "metric": "loss", "better": "lower", "value": 0.9, "random_init": 0.1,
        "n": 20,
    }  # fmt: skip
    lines = table({**FORECAST, "task": "reconstruction", "rows": [values, ids, latent]}).splitlines()
    assert lines[0] == "reconstruction, hidden test items (in time order)"
    assert lines[1].split() == [
        "head", "score", "scored", "pre-trained", "random", "init", "position", "mean", "unigram", "bigram",
    ]  # fmt: skip
    assert lines[2].split() == ["pixels", "mse", "99", "0.5000", "1.1000", "0.4000"]
    assert lines[3].split() == ["pieces", "accuracy", "20", "0.3000", "0.0000", "0.1000", "0.4000"]
    assert len({len(line) for line in lines[1:5]}) == 1
    assert "pieces: bits 5.0000 pre-trained, 6.0000 bigram" in lines
    assert "pieces: accuracy at the 16 places where a mask stands 0.2000 pre-trained, 0.2500 bigram" in lines
    assert "pieces: of the scored of all items 80.00% token, 20.00% keep" in lines
    assert lines[-3].split() == ["pixels", "0.6000", "0.5000", "0.7000"]
    # The loss on another view is no yardstick.
    assert lines[-2:] == [
        "the pre-trained encoder is behind position mean at pixels",
        "the pre-trained encoder is behind bigram at pieces",
    ]


def test_clusters():
    row = {
        "features": "pretrained", "value": 0.6, "nmi": 0.7, "n": 30, "clusters": 3, "smallest_share": 0.1,
        "occupancy": [0.5, 0.4, 0.1],
    }  # fmt: skip
    evaluation = {**FORECAST, "task": "clustering", "metric": "ari", "better": "higher"}
    lines = table({**evaluation, "rows": [row, {**row, "features": "raw_features", "value": 0.5}]}).splitlines()
    assert lines[2].split() == ["pre-trained", "0.6000", "0.7000", "3", "10.0%", "50.0%"]
    assert lines[-1] == "by k-means"
    more = table({**evaluation, "rows": [row, {**row, "features": "assigned", "value": 0.8}]}).splitlines()
    assert more[-1] == "by k-means; assigned: by the clustering term itself"  # its own, so it is not behind it

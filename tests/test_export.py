import numpy as np
import pandas as pd
import pytest
import torch

from structmae.errors import StructmaeError, UsageError
from structmae.export import check_suffix, write_vectors

VECTORS = torch.tensor([[1.5, -2.25], [3.125, 1e-7]])


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npy"])
def test_vectors_come_back(tmp_path, suffix):
    path = tmp_path / f"vectors{suffix}"
    write_vectors(path, VECTORS, ["a", "b"])
    if suffix == ".npy":
        assert np.array_equal(np.load(path, allow_pickle=False), VECTORS.numpy())
    else:
        table = pd.read_csv(path) if suffix == ".csv" else pd.read_parquet(path)
        assert list(table.columns) == ["id", "e0", "e1"]
        assert table["id"].tolist() == ["a", "b"]
        np.testing.assert_allclose(table[["e0", "e1"]], VECTORS, rtol=1e-6)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_what_cannot_be_written_is_refused_before_any_work(tmp_path):
    with pytest.raises(UsageError, match=r"\.parquet, \.npy, \.csv"):
        check_suffix(tmp_path / "vectors.txt")
    with pytest.raises(StructmaeError, match="not a folder"):
        check_suffix(tmp_path / "missing" / "vectors.npy")

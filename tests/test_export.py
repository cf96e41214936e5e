import numpy as np
import pandas as pd
import pytest
import torch

from structmae.errors import StructmaeError, UsageError
from structmae.export import check_suffix, write_table, write_vectors

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


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_tables_come_back_with_an_index_that_says_something(tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    hours = pd.date_range("2024-01-01", periods=2, freq="h", name="time")
    read = pd.read_parquet if suffix == ".parquet" else pd.read_csv
    write_table(path, pd.DataFrame({"a": [1.5, 0.1]}, index=hours))
    table = read(path).reset_index()
    assert pd.to_datetime(table["time"]).tolist() == list(hours)
    write_table(path, pd.DataFrame({"a": [1.5, 0.1]}, index=pd.RangeIndex(7, 9)))
    assert list(read(path).columns) == ["a"]
    write_vectors(path, VECTORS, columns={"id": hours, "position": pd.Index([0, 1])})
    assert list(read(path).columns) == ["id", "position", "e0", "e1"]

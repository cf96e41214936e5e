import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from structmae.data import load_series
from structmae.errors import StructmaeError


@pytest.fixture
def csv(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str, name: str = "t.csv") -> Path:
        data = text.encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return tmp_path / name

    return write


DAILY = "date,x,y\n" + "".join(f"2024-01-{day:02d},{day},{day * 2}\n" for day in range(1, 31))


@pytest.mark.parametrize("text", [DAILY, DAILY.replace("\n", "\r\n"), "\ufeff" + DAILY, DAILY.replace("\n", "\n\n")])
def test_files_of_any_origin(csv: Callable[..., Path], text: str) -> None:
    series = load_series(csv(text))
    assert (series.name, series.channels, series.values.shape, series.period) == ("t", ("x", "y"), (30, 2), 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DAILY.replace("07,7,", "07,n.a.,"), "column 'x' holds 'n.a.' in line 8, which is no number"),
        (DAILY + "2024-01-07,1,1\n", "2024-01-07 00:00:00 is on line 8 and on line 32, with different values"),
        (DAILY.replace("2024-01-07", ""), "line 8 has no stamp in column 'date'"),
        (DAILY.replace("2024-01-07", "soon"), "column 'date' holds 'soon' in line 8, which is no date"),
        ("date;x\n2024-01-01;2\n", "one column, 'date;x': save the table with commas"),
        ("1.5,2.5\n" * 20, "the first line is 1.5, 2.5: add a line of column names"),
        ("\n", "the file is empty"),
        ("date,x\n", "no rows: it is empty"),
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_a_file_is_refused_with_its_line(csv: Callable[..., Path], text: str, message: str, name: str) -> None:
    with pytest.raises(StructmaeError, match=message) as raised:
        load_series(csv(text, name))
    assert name in str(raised.value)


def test_damaged_files(tmp_path: Path) -> None:
    for name in ("t.csv.gz", "t.parquet"):
        (tmp_path / name).write_bytes(b"\x1f\x8b" + bytes(30))
        with pytest.raises(StructmaeError, match=rf"{name}: (cannot be read|not a)"):
            load_series(tmp_path / name)

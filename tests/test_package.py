"""What is shipped: the wheel, and the promises of the README."""

import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import structmae

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_has_the_package_and_the_cards_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "structmae/cli.py" in names
    cards = {Path(name).name for name in names if name.startswith("structmae/_cards/")}
    assert cards == {path.name for path in (ROOT / "datasets").iterdir()}
    tops = {name.split("/")[0] for name in names}
    assert tops == {"structmae", f"structmae-{structmae.__version__}.dist-info"}


@pytest.mark.slow
def test_the_wheel_runs_outside_the_checkout(wheel, tmp_path, offline_environment):
    """In a venv of its own that sees this one's dependencies but not the checkout."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    site = next((tmp_path / "venv" / "lib").glob("python*")) / "site-packages"
    zipfile.ZipFile(wheel).extractall(site)
    ours = Path(pytest.__file__).parents[1]
    (site / "dependencies.pth").write_text(f"{ours}\n")  # after the wheel's own folder; the checkout's .pth is not read
    python = tmp_path / "venv" / "bin" / "python"
    code = "import structmae, structmae.data; print(structmae.__file__); print(len(structmae.data.cards()))"
    where, cards = subprocess.check_output([python, "-c", code], cwd=tmp_path, text=True).split()
    assert Path(where).is_relative_to(site)
    assert int(cards) == len(list((ROOT / "datasets").glob("*.toml")))
    command = [python, "-m", "structmae", "pretrain", "--set", "train.epochs=3", "--json"]
    shown = subprocess.run(command, cwd=tmp_path, env=offline_environment, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert (tmp_path / "runs" / "citations-graphmae-0" / "model.safetensors").exists()


def test_one_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == structmae.__version__
    assert re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.M)[1] == structmae.__version__
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1] == structmae.__version__


def test_readme_commands_exist():
    """Each `structmae ...` line of the README parses, and each file that it names is there."""
    from structmae.cli import parser

    lines = re.findall(r"^(?:structmae|\.venv/bin/structmae) (.*?)(?:\s+#.*)?$", README, re.M)
    assert len(lines) >= 5
    for line in lines:
        parser().parse_args(line.split())
    for name in re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(
        r"(?:python|jupyter lab) ((?:benchmarks|examples)/[\w./-]+)", README
    ):
        assert (ROOT / name).exists(), name


def test_readme_python_runs(tmp_path, offline_environment):
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert blocks
    for block in blocks:
        fast = block.replace('recipe="graphmae"', 'recipe="graphmae", settings={"train.epochs": 1}, progress=False')
        assert fast != block or "pretrain" not in block or "settings=" in block
        shown = subprocess.run(
            [sys.executable, "-c", fast],
            cwd=tmp_path,
            env=offline_environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert shown.returncode == 0, shown.stderr

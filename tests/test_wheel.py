"""What a release consists of: the sdist, and the wheel, installed and used far from the sources."""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path
from tarfile import TarFile
from zipfile import ZipFile

import pytest
import torch

import chartae
from chartae.data import digits, write_npz

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
OUTSIDE = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
"""The environment of a process that finds no package by a variable."""


def run(*command: str | Path, folder: Path) -> str:
    """Run a command in a folder, and return what it prints."""
    done = subprocess.run(
        command, cwd=folder, env=OUTSIDE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def build(source: Path, out: Path, *options: str) -> None:
    run(
        sys.executable, "-m", "build", "--no-isolation", "--outdir", out, *options, folder=source
    )  # fmt: skip


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sdist, and of the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("release")
    build(ROOT, folder)
    return folder


@pytest.fixture
def wheel(release: Path) -> Path:
    return release / f"chartae-{chartae.__version__}-py3-none-any.whl"


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    source = ROOT / "src"
    files = [path for path in (source / "chartae").rglob("*") if path.is_file()]
    expected = {
        str(path.relative_to(source)): path.read_bytes()
        for path in files
        if "__pycache__" not in path.parts
    }
    assert {"chartae/py.typed", "chartae/report/templates/report.html.jinja"} <= expected.keys()
    with ZipFile(wheel) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    about = {name: found.pop(name) for name in list(found) if ".dist-info/" in name}
    assert found == expected
    assert any(name.endswith("/LICENSE") for name in about)


def test_the_sdist_has_what_the_tests_need_and_builds_the_wheel_of_the_sources(
    release: Path, wheel: Path, tmp_path: Path
) -> None:
    with TarFile.open(release / f"chartae-{chartae.__version__}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("tests/test_wheel.py", "docs/index.md", "README.md", "LICENSE", "Makefile"):
        assert name in names
    assert not [name for name in names if "__pycache__" in name or ".venv" in name]
    build(ROOT, tmp_path, "--wheel")
    direct = tmp_path / wheel.name
    assert hashlib.sha256(direct.read_bytes()).digest() == (
        hashlib.sha256(wheel.read_bytes()).digest()
    )


def test_the_installed_wheel_works(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "environment"
    venv.create(home, with_pip=False)
    programs = home / ("Scripts" if os.name == "nt" else "bin")
    # Dependencies come from the environment of the tests. Its own, editable chartae does not: what
    # a .pth file there adds to the path is not added here.
    here = [path for path in sys.path if Path(path).name == "site-packages"]
    (site,) = home.rglob("site-packages")
    (site / "dependencies.pth").write_text("\n".join(here), "utf-8")
    # Without an index, pip refuses to install unless the environment has all that the metadata of
    # the wheel and its extras ask for.
    pip = (sys.executable, "-m", "pip", "--python", programs / "python", "install", "--no-index")
    run(*pip, "--constraint", ROOT / "constraints.txt", f"{wheel}[all]", folder=tmp_path)

    where = run(programs / "python", "-c", "import chartae; print(chartae.__file__)", folder=home)
    assert Path(where.strip()).is_relative_to(home)

    def command(*arguments: str) -> str:
        return run(programs / "chartae", *arguments, folder=tmp_path)

    assert command("--version").strip() == chartae.__version__
    assert "augment" in command("--help")
    report = command("doctor")
    assert "MISSING" not in report
    assert "chartae[" not in report  # no extra has to be installed; trackers are not extras
    data = digits()
    write_npz(tmp_path / "digits.npz", data.subset(torch.nonzero(data.y < 2)[:40, 0]))
    short = ("--epochs", "1", "--latent-dim", "2")
    command("augment", "digits.npz", "--per-class", "2", "--out", "new.npz", "--report", *short)
    command("train", "digits.npz", "--out", "model", *short)
    command("explore", "model", "digits.npz", "--html", "page.html")
    for page in ("new.html", "page.html"):
        assert "<html" in (tmp_path / page).read_text("utf-8")

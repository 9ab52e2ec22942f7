"""The wheel has every module and every settings file, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("rhm", "networks", "datamodules", "rules", "callbacks", "experiments")
BUILD = "from setuptools import build_meta; print(build_meta.build_{kind}({folder!r}))"


def built(folder: Path, kind: str = "wheel") -> Path:
    """A wheel of the project, or what pip makes of it for an editable installation, from a copy in ``folder/source``."""
    source = folder / "source"
    source.mkdir()
    for name in (*PACKAGES, "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE":
        shutil.copy(ROOT / name, source)
    script = BUILD.format(kind=kind, folder=str(folder))
    done = subprocess.run([sys.executable, "-c", script], cwd=source, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_it_has_every_module_and_every_settings_file(tmp_path):
    listed = zipfile.ZipFile(built(tmp_path)).namelist()
    there = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    there |= {f"rhm/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.*")}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert {name for name in listed if not name.startswith(f"rhm_local_learning-{version}.dist-info/")} == there

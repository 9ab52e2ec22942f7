"""Wheels of the project, and environments in which they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
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


class Installed:
    """An environment with the project installed by pip, and the libraries of the one that runs the tests.

    Args:
        folder: in which all is made.
        kind: ``wheel`` or ``editable``.
    """

    def __init__(self, folder: Path, kind: str):
        self.bin = folder / "venv/bin"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        pip = [sys.executable, "-m", "pip", "--python", self.bin / "python", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", built(folder, kind)], check=True)
        (packages,) = (folder / "venv/lib").glob("python*/site-packages")
        libraries = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
        (packages / "libraries.pth").write_text("\n".join(libraries), encoding="utf-8")  # not what is installed there editable

    def run(self, *command: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
        """A program of the environment, in a folder, on one thread."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "RHM_"))}
        env = {**kept, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **more}
        program = [str(self.bin / command[0]), *command[1:]]
        return subprocess.run(program, cwd=cwd, env=env, capture_output=True, encoding="utf-8", check=False)

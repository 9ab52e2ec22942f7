"""The one thing that pyproject.toml cannot say: a wheel takes the folder of settings along, as ``rhm/configs``."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies ``configs`` beside the modules; an editable installation reads it where it is."""

    def run(self) -> None:
        """Build."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "rhm" / "configs"
            shutil.rmtree(target, ignore_errors=True)  # an earlier build may have files that are gone
            shutil.copytree(Path(__file__).parent / "configs", target)


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildWithConfigs})

"""The wheel has every module and every settings file, and nothing else."""

from __future__ import annotations

import tomllib
import zipfile

from wheels import PACKAGES, ROOT, built


def test_it_has_every_module_and_every_settings_file(tmp_path):
    listed = zipfile.ZipFile(built(tmp_path)).namelist()
    there = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    there |= {f"rhm/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.*")}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert {name for name in listed if not name.startswith(f"rhm_local_learning-{version}.dist-info/")} == there

"""What the documents say can be done: their Python runs, their links lead somewhere, their commands are there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from experiments.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
BLOCK = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)

# -------------------------------------------------------------------- Python

SMALLER = {
    "README.md": {
        "train_size=2048, seeds=[0, 1, 2]": "train_size=64, seeds=[0, 1], batch_size=16, test_size=32, probe_size=32",
        "width=256": "width=8",
        "max_steps=1500": "max_steps=2, accelerator='cpu'",
    }
}
"""What is made small before a page's Python runs; the reader sees the sizes of the figures."""

FILES_OF_A_RULE = "docs/add-a-rule.md"
WITH_PYTHON = [name for name in NAMES if "```python" in (ROOT / name).read_text() and name != FILES_OF_A_RULE]


def blocks(name: str, *languages: str) -> list[str]:
    return [block["text"] for block in BLOCK.finditer((ROOT / name).read_text()) if block["language"] in languages]


@pytest.fixture
def run_a(tmp_path, monkeypatch):
    """An empty folder to be in, but for a tiny run in ``runs/a``, which the README makes first."""
    monkeypatch.chdir(tmp_path)
    small = [
        "--data.seeds=[0,1]",
        "--data.train_size=64",
        "--data.batch_size=16",
        "--data.test_size=32",
        "--data.probe_size=32",
    ]
    short = ["--trainer.max_steps=2", "--trainer.accelerator=cpu", "--model.network.width=8", "--tables=false"]
    main(["fit", f"-c={ROOT / 'configs/quickstart.yaml'}", "--run_dir=runs/a", *small, *short])


@pytest.mark.parametrize("name", WITH_PYTHON)
def test_the_python_of_a_page_runs_from_top_to_bottom(name, run_a):
    text = "".join(blocks(name, "python"))
    for shown, small in SMALLER.get(name, {}).items():
        assert text.count(shown) == 1, f"{name} no longer says {shown}"
        text = text.replace(shown, small)
    exec(compile(text, name, "exec"), {"__name__": "page"})


def test_the_readme_has_python():
    assert "README.md" in WITH_PYTHON


# -------------------------------------------------------------------- the files of a new rule


def files_of_a_rule() -> dict[str, str]:
    """The path in each heading and the block that follows it."""
    found = {}
    for section in re.split(r"^## ", (ROOT / FILES_OF_A_RULE).read_text(), flags=re.MULTILINE):
        path, block = re.match(r"\d\. .*: `(\S+)`$", section, re.MULTILINE), BLOCK.search(section)
        if path:
            assert block is not None, section
            found[path[1]] = block["text"]
    return found


@pytest.mark.chaos
def test_the_files_of_a_new_rule_are_all_it_takes(tmp_path):
    files = files_of_a_rule()
    folders = [Path(path).parts[0] for path in files]
    assert folders == ["rules", "configs", "tests"]
    for part in ("rhm", "networks", "datamodules", "rules", "callbacks", "experiments", "configs", "tests"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path, text in files.items():
        assert not (tmp_path / path).exists() and (tmp_path / path).parent.is_dir()
        (tmp_path / path).write_text(text)
    tests = [
        "tests/rules/test_every_rule.py",
        "tests/rules/test_equations.py",
        "tests/test_structure.py",
        "tests/test_shapes.py",
    ]
    pytest_ = [sys.executable, "-m", "pytest", "-n0", "-vv", "-p", "no:cacheprovider", *tests, "-k", "spectral"]
    done = subprocess.run(pytest_, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for test in tests:
        assert re.search(rf"^{test}.*spectral.* PASSED", done.stdout, re.MULTILINE | re.IGNORECASE), (test, done.stdout)
    code = [path for path in files if path.endswith(".py")]
    lint = subprocess.run([sys.executable, "-m", "ruff", "check", *code], cwd=tmp_path, capture_output=True, text=True)
    assert lint.returncode == 0, lint.stdout + lint.stderr


OWN = re.compile(r"^```\w+ own=(?P<path>\S+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
SMALLER_STUDY = {
    "settings": {"model.network.width": 8, "data.batch_size": 16, "trainer.accelerator": "cpu"},
    "steps": {"least": 2, "most": 2},
    "tasks": [{"v": 4, "n": 4, "m": 2, "L": 3}],
    "sizes": {"multiples": [64]},
    "seeds": [0],
    "test_size": 64,
    "search": None,
    "refine": 0,
}


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """To be in, with the files of a rule outside of the project; nothing of them stays imported."""
    monkeypatch.chdir(tmp_path)
    files = {block["path"]: block["text"] for block in OWN.finditer((ROOT / FILES_OF_A_RULE).read_text())}
    assert files.keys() == {"mylab/rules.py", "my_rule.yaml", "test_my_rule.py", "my_study.yaml"}
    for path, text in {"mylab/__init__.py": "", **files}.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    finders = list(sys.meta_path)
    yield tmp_path
    sys.meta_path[:] = finders
    for name in [name for name in sys.modules if name.split(".")[0] == "mylab"]:
        del sys.modules[name]


def test_a_rule_outside_of_the_project_is_checked_trained_and_studied(own_folder, capsys):
    task = ["--data.v=4", "--data.n=4", "--data.m=2", "--data.L=3", "--data.train_size=64", "--data.batch_size=16"]
    small = [*task, "--data.test_size=32", "--data.probe_size=32", "--trainer.max_steps=2", "--trainer.accelerator=cpu"]
    main(["check", "-c=my_rule.yaml", *small, "--contract"])
    assert "MyRule" in capsys.readouterr().out
    main(["fit", "-c=my_rule.yaml", *small, "--run_dir=runs/mine", "--tables=false"])
    main(["check", "--model=mylab.rules.MyRule", *small])
    study = yaml.safe_load((own_folder / "my_study.yaml").read_text())
    (own_folder / "my_study.yaml").write_text(yaml.safe_dump({**study, **SMALLER_STUDY}))
    main(["sweep", "-c=my_study.yaml", "--run_dir=runs/study", "--launcher=debug"])
    assert {path.name for path in (own_folder / "runs/study/runs").iterdir()} == {"my_rule", "defaults", "dfa"}
    text = (own_folder / "test_my_rule.py").read_text()
    page = {"__name__": "page"}
    exec(compile(text, "test_my_rule.py", "exec"), page)
    page["test_my_rule_keeps_the_contract"]()


# -------------------------------------------------------------------- links and commands


def without_code(name: str) -> str:
    return BLOCK.sub("", (ROOT / name).read_text())


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_links_between_documents_lead_somewhere(name):
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(name)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        page = (ROOT / name).parent / path if path else ROOT / name
        assert page.exists(), link
        assert not anchor or anchor in anchors(page), link


HELP = sorted({line for name in NAMES for line in re.findall(r"`(rhm[^`]* --[\w.]*help[^`]*)`", without_code(name))})
"""Commands of the documents that list settings."""


def test_the_documents_say_how_settings_are_listed():
    kinds = {re.search(r"--([\w.]*)help", line)[1] for line in HELP}
    assert kinds == {"", "data.", "model.", "model.network.", "data.pairs.", "trainer.callbacks."}
    for name in NAMES:
        assert not re.findall(r"`--[\w.]+\.help\S*`", without_code(name)), "a help line without its command"


@pytest.mark.parametrize("line", HELP)
def test_help_lines_list_settings_as_they_are_typed(line, capsys):
    with pytest.raises(SystemExit) as stop:
        main(shlex.split(line)[1:])
    out, err = capsys.readouterr()
    assert stop.value.code == 0 and err == "" and out.count("--") > 1, out + err


def test_anchors_are_githubs(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# The `rate` of X, (again)\n\n```\n# no heading\n```\n\n## 4. Depth\n")
    assert anchors(page) == {"the-rate-of-x-again", "4-depth"}


TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
CALLERS = [*NAMES, ".ci/run", ".github/workflows/test.yml"]


@pytest.mark.parametrize("name", CALLERS)
def test_what_make_is_asked_for_is_in_the_makefile(name):
    asked = re.findall(r"(?:`|^\s*|run: )make ((?:[a-z-]+ ?)+)", (ROOT / name).read_text(), re.MULTILINE)
    assert {target for targets in asked for target in targets.split()} <= TARGETS


def test_continuous_integration_runs_the_tests():
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "make test"
    jobs = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]
    assert any("make test" in step.get("run", "") for step in jobs["test"]["steps"])
    assert any("make docs" in step.get("run", "") for step in jobs["docs"]["steps"])
    pythons = jobs["test"]["strategy"]["matrix"]["python"]
    assert pythons == ["3.11", "3.12", "3.13"]


def test_the_citation_has_what_the_format_asks_for():
    """Citation File Format 1.2.0: required keys, and no key or type that it does not know."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation.keys() >= {"cff-version", "message", "title", "authors"} and citation["cff-version"] == "1.2.0"
    assert citation.keys() <= {
        "cff-version",
        "message",
        "title",
        "type",
        "authors",
        "version",
        "license",
        "abstract",
        "references",
    }
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None and citation["version"] == version[1]
    for reference in citation["references"]:
        known = {"type", "title", "authors", "year", "journal", "volume", "start", "doi", "identifiers", "notes"}
        assert {"type", "title", "authors"} <= reference.keys() <= known
        assert reference["type"] in ("article", "generic") and isinstance(reference["year"], int)
        assert all(author.keys() <= {"family-names", "given-names", "name"} for author in reference["authors"])

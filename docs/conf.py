"""The documentation site, ``make docs``: these pages as they are, and a page for each module from its docstrings.

The source folder is the repository, so that links between documents are those that GitHub follows.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

logger = logging.getLogger(__name__)
ROOT = Path(__file__).parents[1]
PACKAGES = ("rhm", "networks", "datamodules", "rules", "callbacks", "experiments")
RESULTS = Path("docs/results")

project = "rhm-local-learning"
html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
extensions = ["myst_parser", "sphinx.ext.napoleon", "autoapi.extension"]
source_suffix = {".md": "markdown", ".ipynb": "markdown", ".rst": "restructuredtext"}
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "docs/*.rst", "docs/api/**", "examples/*.ipynb"]
exclude_patterns = [".*", "build", "runs", "site", "tests"]
myst_heading_anchors = 4

autoapi_dirs = [str(ROOT / package) for package in PACKAGES]
autoapi_root = "docs/api"
autoapi_add_toctree_entry = False
autoapi_options = ["members", "undoc-members", "show-inheritance", "show-module-summary"]
autoapi_member_order = "bysource"
napoleon_use_ivar = True

nitpicky = True
# Others' names: those of other projects, an alias that is handed on from one, one that differs when types are checked, and two
# from the constructor of rich's progress bar.
OTHERS = rf"(?!(?:{'|'.join(PACKAGES)})\.)\w+(\.\w+)+|.*\.(OptimizerCallable|Seeds)|ProgressColumn|GetTimeCallable"
nitpick_ignore_regex = [("py:.*", OTHERS)]
suppress_warnings = ["autoapi.python_import_resolution"]  # types that one module hands on from another; nitpicky sees the rest

CONTENTS = {
    "Use": (
        "/examples/first_curve",
        "first-steps",
        "command-line",
        "own-data",
        "studies",
        "diagnostics",
        "tensorboard",
        "cluster",
        "performance",
    ),
    "Results": ("rules-at-their-best", "findings", "objections", "rules", "equal-footing", "near-the-floor", "earlier"),
    "Build on it": ("add-a-rule", "architecture", "testing", "dependencies", "python", "/CONTRIBUTING", "/CHANGELOG"),
}
"""Pages below docs/ in the order of the site; one that is forgotten is a warning."""


def read_source(app: Sphinx, docname: str, source: list[str]) -> None:
    """Add the contents to the home page, and make a notebook a page."""
    if docname == root_doc:
        for title, pages in CONTENTS.items():
            paths = "\n".join(page if page.startswith("/") else f"/docs/{page}" for page in pages)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n:titlesonly:\n\n{paths}\n```\n"
    elif Path(app.env.doc2path(docname)).suffix == ".ipynb":
        source[0] = page_of(json.loads(source[0]))


def page_of(notebook: dict[str, Any]) -> str:
    """Cells of a notebook and what they have printed and drawn, as Markdown."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                parts.append(f"![](data:image/png;base64,{data['image/png'].strip()})")
            else:
                parts.append(f"```text\n{''.join(output.get('text', data.get('text/plain', '')))}\n```")
    return "\n\n".join(parts)


def read_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Before the Google style is read: indented equations are blocks, and a constant's text is no ``type: text``."""
    for i in reversed(range(len(lines) - 2)):
        if lines[i] and not lines[i + 1] and indent(lines[i + 2]) >= indent(lines[i]) + 4:
            lines[i + 1 : i + 1] = ["", " " * indent(lines[i]) + "::"]
    if what in ("data", "attribute", "property"):
        lines[:0] = ["..", ""]


def indent(line: str) -> int:
    return len(line) - len(line.lstrip())


class LinksToResults(SphinxTransform):
    """Links to the pages of results, which are copied as they are with their pictures, are no downloads."""

    default_priority = 500

    def apply(self, **kwargs: Any) -> None:
        for link in list(self.document.findall(lambda n: isinstance(n, addnodes.download_reference | addnodes.pending_xref))):
            target = link.get("reftarget", "")
            if target.startswith("results/"):
                link.replace_self(nodes.reference("", "", *link.children, refuri=target))


def own_name(app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, inner: nodes.TextElement) -> nodes.Node | None:
    """What a name means that is not where it is looked up: ``networks.Layer`` is ``networks.layer.Layer``."""
    if node.get("refdomain") != "py":
        return None
    name, found = node["reftarget"].split("."), []
    while name and not found:
        found = [full for full in by_last_name(env)[name[-1]] if f".{full}".endswith(f".{'.'.join(name)}")]
        name = name[1:]
    if len(found) != 1:
        return None
    return env.domains.python_domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, inner)


@cache
def by_last_name(env: BuildEnvironment) -> dict[str, list[str]]:
    """Full names of all that has a docstring page."""
    found = defaultdict(list)
    for full in env.domains.python_domain.objects:
        found[full.split(".")[-1]].append(full)
    return found


class Links(HTMLParser):
    """Addresses that a page names."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for key, value in attrs if key in ("href", "src") and value]


def finish(app: Sphinx, error: Exception | None) -> None:
    """Add the home page and the results, and look whether every address of the whole site is there."""
    if error is not None or app.builder.name != "html":
        return
    site = Path(app.outdir)
    shutil.copy(site / f"{root_doc}.html", site / "index.html")
    shutil.copytree(ROOT / RESULTS, site / RESULTS, dirs_exist_ok=True)
    for page in site.rglob("*.html"):
        links = Links()
        links.feed(page.read_text(encoding="utf-8"))
        for link in links.found:
            parts = urlsplit(link)
            if not parts.scheme and parts.path and not (page.parent / unquote(parts.path)).is_file():
                logger.warning("%s: %s is not there", page.relative_to(site), link)


def setup(app: Sphinx) -> None:
    """What Sphinx calls."""
    app.connect("source-read", read_source)
    app.connect("autodoc-process-docstring", read_docstring, priority=100)
    app.connect("missing-reference", own_name)
    app.connect("build-finished", finish)
    app.add_transform(LinksToResults)

"""What `mkdocs build` adds to the pages: files of other folders, reference, pictures, notebooks.

mkdocs calls the functions by their names (`hooks` in mkdocs.yml).
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # mkdocs loads this file by its path

from benchmarks import cost  # noqa: E402
from docs import figures, notebooks, reference, reproductions  # noqa: E402

FOLDED_IN = {
    "cluster/README.md": "how-to/launch.md",
    "benchmarks/README.md": "explanation/benchmarks.md",
    "raydist/README.md": "explanation/house.md",
    "CHANGELOG.md": "reference/changelog.md",
    "CONTRIBUTING.md": "explanation/contributing.md",
    "SECURITY.md": "explanation/security.md",
}
"""Files that are read in their own folder and are pages of the site, too."""

_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)]*)?\))")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lists the verbs in the navigation."""
    for part in config.nav or []:
        for entry in part.get("Reference", []):
            if isinstance(entry, dict) and "Verbs" in entry:
                entry["Verbs"] = [
                    {verb: f"reference/verb/raydist-{verb}.md"} for verb in reference.verbs()
                ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are not in `docs`."""
    from mkdocs.structure.files import File

    for source, place in FOLDED_IN.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=text))
    for name, svg in figures.draw().items():
        files.append(File.generated(config, f"images/{name}", content=svg))
    for verb in reference.verbs():
        page = reference.verb_page(verb)
        files.append(File.generated(config, f"reference/verb/raydist-{verb}.md", content=page))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Fills in lists and tables, and points links to files of the repository at their pages."""
    here = page.file.src_uri
    if here == "reference/index.md":
        markdown = markdown.replace("<!-- verbs -->", reference.verb_table())
    if here == "reference/reproductions.md":
        markdown = markdown.replace("<!-- figures -->", reproductions.sections())
    if here == "how-to/cluster.md":
        markdown = markdown.replace("<!-- cost -->", cost.tables())
        markdown = markdown.replace("<!-- raylets -->", cost.raylets())
    markdown = markdown.replace("<!-- languages -->", reference.language_table())
    name = posixpath.basename(here).removesuffix(".md")
    if here.startswith("tutorials/") and name in notebooks.NAMES:
        markdown = notebooks.page(notebooks.executed(name), name)
    sources = {place: source for source, place in FOLDED_IN.items()}
    folder = posixpath.dirname(sources.get(here, f"docs/{here}"))

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        place = FOLDED_IN.get(target) or target.removeprefix("docs/")
        if "://" in match[2] or (target == place and here not in sources):
            return match[0]
        if target == place and not target.startswith("docs/"):
            return match[0]
        return match[1] + posixpath.relpath(place, posixpath.dirname(here) or ".") + match[3]

    return _LINK.sub(link, markdown.replace("```console\n", "```sh\n"))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts pictures into the page itself, so that they take its colours."""

    def inline(match: re.Match[str]) -> str:
        file = files.get_file_from_path(f"images/{match[2]}")
        assert file is not None, match[2]
        opening = f'<figure class="figure" role="img" aria-label="{match[1]}">'
        return f"{opening}{file.content_string}</figure>"

    return re.sub(r'<img alt="([^"]*)" src="[^"]*?images/([\w-]+\.svg)" />', inline, html)

"""What the site needs beyond Markdown as it is read in the repository.

* A link that leads out of docs/, like ../examples/two_tower.py, brings that file into the site, and
  what a page brought in like this links to, too.
* Formulas between dollars become MathML: no script, and nothing that a browser has to fetch.
"""

from __future__ import annotations

import html
import posixpath
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(?=[)#])")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
CELL_CODE = re.compile(r"<td[^>]*>.*?</td>", re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Adds the files outside docs/ that pages link to, under their paths in the repository."""
    pages = [(f"docs/{file.src_uri}", file) for file in files.documentation_pages()]
    while pages:
        place, page = pages.pop()
        for link in LINK.findall(page.content_string):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(place), link))
            if path.startswith(("docs/", "..")) or not (ROOT / path).is_file():
                continue
            if files.get_file_from_path(path) is None:
                file = File.generated(
                    config, path, abs_src_path=str(ROOT / path), inclusion=InclusionLevel.NOT_IN_NAV
                )
                files.append(file)
                if file.is_documentation_page():
                    pages.append((path, file))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links from docs/ to the rest of the repository, as the site has them."""
    return markdown if page.file.src_uri.startswith("benchmarks/") else markdown.replace("](../", "](")


def on_page_content(content: str, **_: Any) -> str:
    """Formulas as MathML; a bar in a table's code without the backslash that GitHub wants there."""

    def mathml(found: re.Match[str]) -> str:
        display = "block" if found[1] == "div" else "inline"
        return str(convert(html.unescape(found[2]).strip(), display=display))

    content = CELL_CODE.sub(lambda found: found[0].replace("\\|", "|"), content)
    return FORMULA.sub(mathml, content)

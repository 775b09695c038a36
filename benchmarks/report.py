"""docs/evidence.md as one page for a browser that needs no other file: `python -m benchmarks.report` writes evidence.html."""

import re
from base64 import b64encode
from mimetypes import guess_type
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from .results import DOCS

SOURCE, REPORT = DOCS / "evidence.md", DOCS / "evidence.html"


class Heading(NamedTuple):
    """tag: h2 or h3. anchor: as GitHub makes it of the text."""

    tag: str
    text: str
    anchor: str


def render(text: str, folder: Path) -> str:
    """HTML of a page in Markdown; its pictures have paths from the folder. Raises FileNotFoundError for a missing one."""
    markdown = MarkdownIt("commonmark", {"html": True}).enable("table")
    markdown.add_render_rule("table_open", lambda *_: '<div class="table"><table>\n')
    markdown.add_render_rule("table_close", lambda *_: "</table></div>\n")
    tokens = markdown.parse(re.sub(r"<!--.*?-->", "", text))
    title, *headings = _headings(tokens)
    for token in tokens:
        for image in (child for child in token.children or () if child.type == "image"):
            picture = folder / str(image.attrs["src"])
            image.attrs["src"] = f"data:{guess_type(picture)[0]};base64,{b64encode(picture.read_bytes()).decode()}"
    body = Markup(markdown.renderer.render(tokens[3:], markdown.options, {}))  # the title has its place in the template
    templates = Environment(loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, autoescape=True)
    return templates.get_template("report.html").render(title=title.text, headings=headings, body=body)


def _headings(tokens: list[Token]) -> list[Heading]:
    """The page's headings, which get their anchors."""
    found = []
    for opening, inline in zip(tokens, tokens[1:]):
        if opening.type == "heading_open":
            anchor = re.sub(r"[^\w\- ]", "", inline.content.lower()).replace(" ", "-")
            opening.attrs["id"] = anchor
            found.append(Heading(opening.tag, inline.content, anchor))
    return found


def main() -> None:
    REPORT.write_text(render(SOURCE.read_text(encoding="utf-8"), DOCS), encoding="utf-8")


if __name__ == "__main__":
    main()

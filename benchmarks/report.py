"""docs/evidence.md as one page that needs nothing beside it: `python -m benchmarks.report` writes docs/evidence.html."""

import base64
import re
from mimetypes import guess_type
from pathlib import Path

from jinja2 import Template
from markdown_it import MarkdownIt

from tools.environment import REPOSITORY

PAGE = REPOSITORY / "docs" / "evidence.md"
TEMPLATE = Template(
    """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>
  :root { color-scheme: light dark }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
  img { max-width: 100%; background: white }
  table { display: block; overflow-x: auto; border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums }
  th, td { padding: .2rem .5rem; border-bottom: 1px solid #8885; text-align: left; white-space: nowrap }
  pre { overflow-x: auto; padding: .5rem; background: #8882 }
  h2 { margin-top: 3rem }
</style>
<nav><ul>{% for anchor, text in headings %}<li><a href="#{{ anchor }}">{{ text }}</a></li>{% endfor %}</ul></nav>
<main>
{{ body }}
</main>
</html>
""",
    autoescape=False,  # what is put in is HTML of our own page
)


def anchor(heading: str) -> str:
    """As GitHub names headings."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def render(page: Path) -> str:
    """A Markdown page as HTML with its pictures inside. Raises FileNotFoundError where one is missing."""
    markdown = MarkdownIt("commonmark").enable("table")
    tokens = markdown.parse(page.read_text())
    headings = []
    for token, content in zip(tokens, tokens[1:]):
        if token.type == "heading_open" and token.tag == "h2":
            headings.append((anchor(content.content), content.content))
            token.attrSet("id", anchor(content.content))
        for child in content.children or ():
            if child.type == "image":
                child.attrSet("src", _inside(page.parent / str(child.attrGet("src"))))
    body = markdown.renderer.render(tokens, markdown.options, {})
    return TEMPLATE.render(title=tokens[1].content, headings=headings, body=body)


def _inside(picture: Path) -> str:
    kind, _ = guess_type(picture.name)
    return f"data:{kind};base64,{base64.b64encode(picture.read_bytes()).decode()}"


def main() -> None:
    written = PAGE.with_suffix(".html")
    written.write_text(render(PAGE))
    print(written)


if __name__ == "__main__":
    main()

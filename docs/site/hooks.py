"""The steps of `make docs` beyond Markdown.

- A link to a file outside docs/, such as an example, becomes a link to the repository.
- The path and name of a test in backticks become a link to its file in the repository. The name may
  break at an underscore.
- `<!-- tables -->` becomes the tables, read from the migrations.
"""

import re
from pathlib import Path
from typing import Any, Final

LINK: Final = re.compile(r"\]\((\.\./[^)\s]+)\)")
TEST: Final = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
TABLES: Final = "<!-- tables -->"
COMMENT: Final = re.compile(r"^-- ?(.*)$", re.MULTILINE)
COLUMNS: Final = re.compile(r"^- ([\w, ]+):", re.MULTILINE)


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Return the page's Markdown, with links to the repository and with the tables."""
    root = Path(config.config_file_path).parent
    if TABLES in markdown:
        markdown = markdown.replace(TABLES, tables(root / "schema" / "migrations"))
    here = Path(page.file.abs_src_path).parent
    tree = f"{config.repo_url.rstrip('/')}/blob/main"

    def absolute(found: re.Match[str]) -> str:
        path, mark, fragment = found[1].partition("#")
        target = (here / path).resolve()
        if target.is_relative_to(config.docs_dir):
            return found[0]
        return f"]({tree}/{target.relative_to(root)}{mark}{fragment})"

    def named(found: re.Match[str]) -> str:
        return f"[<code>{found[2].replace('_', '_<wbr>')}</code>]({tree}/{found[1]})"

    return TEST.sub(named, LINK.sub(absolute, markdown))


def tables(migrations: Path) -> str:
    """Return one section per migration: its comment as Markdown, its statement as code."""
    return "\n".join(section(path) for path in sorted(migrations.glob("*.sql")))


def section(path: Path) -> str:
    """Return the section of one migration."""
    text = path.read_text(encoding="utf-8")
    number, _, name = path.stem.partition("_")
    words = "\n".join(COMMENT.findall(text)).replace("\n- ", "\n\n- ", 1)
    words = COLUMNS.sub(lambda found: f"- `{found[1].replace(', ', '`, `')}`:", words)
    statement = COMMENT.sub("", text).replace("{schema}", "outbox").strip()
    return f"## `{name}`\n\nMigration {number}. {words}\n\n```sql\n{statement}\n```\n"

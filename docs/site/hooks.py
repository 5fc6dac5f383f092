"""The steps of `make docs` beyond Markdown.

- The site's search leaves the decisions out: a user who searches wants what holds now.
- A link to a file outside docs/, such as an example, becomes a link to the repository.
- `<!-- tables -->` becomes the tables, read from the migrations.
- `<!-- fields of CLASS -->` becomes a table of the fields of a dataclass, each with the string
  below it.
"""

import ast
import inspect
import re
from dataclasses import MISSING, fields
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

LINK: Final = re.compile(r"\]\((\.\./[^)\s]+)\)")
TABLES: Final = "<!-- tables -->"
FIELDS: Final = re.compile(r"<!-- fields of ([\w.]+)\.(\w+) -->")
COMMENT: Final = re.compile(r"^-- ?(.*)$", re.MULTILINE)
COLUMNS: Final = re.compile(r"^- ([\w, ]+):", re.MULTILINE)


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Return the page's Markdown, with links to the repository and with the tables."""
    if page.file.src_uri.startswith("decisions/"):
        page.meta["search"] = {"exclude": True}
    root = Path(config.config_file_path).parent
    if TABLES in markdown:
        markdown = markdown.replace(TABLES, tables(root / "schema" / "migrations"))
    markdown = FIELDS.sub(lambda found: fields_table(found[1], found[2]), markdown)
    here = Path(page.file.abs_src_path).parent
    tree = f"{config.extra['repository']}/blob/main"

    def absolute(found: re.Match[str]) -> str:
        path, mark, fragment = found[1].partition("#")
        target = (here / path).resolve()
        if target.is_relative_to(config.docs_dir):
            return found[0]
        return f"]({tree}/{target.relative_to(root)}{mark}{fragment})"

    return LINK.sub(absolute, markdown)


def fields_table(module: str, name: str) -> str:
    """Return a row for each field of a dataclass that has a string below it."""
    shown = getattr(import_module(module), name)
    defaults = {
        each.name: each.default if each.default_factory is MISSING else each.default_factory()
        for each in fields(shown)
    }
    rows = ["| setting | type | default | use |", "| --- | --- | --- | --- |"]
    (tree,) = ast.parse(inspect.getsource(shown)).body
    for pair in pairwise(tree.body if isinstance(tree, ast.ClassDef) else ()):
        match pair:
            case ast.AnnAssign(ast.Name(field), kind), ast.Expr(ast.Constant(str(text))):
                anchor = f'<a id="{module}.{name}.{field}"></a>'
                kinds = ast.unparse(kind).replace(" | ", "` or `")  # a bar would end the cell
                default, use = repr(defaults[field]), " ".join(text.split())
                rows.append(f"| {anchor}`{field}` | `{kinds}` | `{default}` | {use} |")
            case _:
                pass
    return "\n".join(rows)


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

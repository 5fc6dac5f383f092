"""The pages as built by `make docs`: what a reader sees, and not what the files say."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from html import unescape
from pathlib import Path

import pytest
from tests.support.checkout import ROOT

import dsql_outbox

SITE = ROOT / "build" / "site"
PAGES = sorted(SITE.rglob("*.html"))
REFERENCE = [path for path in PAGES if path.parent.parent.name == "reference"]

pytestmark = pytest.mark.site


def text(html: str) -> str:
    return unescape(re.sub(r"<[^>]+>", "", html))


def members() -> Iterator[str]:
    """Each public class and function of the package, and the methods and fields of each class."""
    for name in sorted(set(dsql_outbox.__all__) - {"__version__"}):
        shown = getattr(dsql_outbox, name)
        if not hasattr(shown, "__module__"):
            continue
        yield name
        if inspect.isclass(shown) and not issubclass(shown, Exception):
            methods = {n for n, _ in inspect.getmembers(shown, inspect.isfunction)}
            own = {f.name for f in fields(shown)} if is_dataclass(shown) else set[str]()
            yield from (f"{name}.{each}" for each in sorted(methods | own) if each[0] != "_")


def test_the_site_is_built() -> None:
    assert len(PAGES) > 20, "run `make docs`"


def test_no_page_has_an_unfilled_snippet() -> None:
    unfilled = re.compile(r"-*8\s*<\s*-")
    assert [p for p in PAGES if unfilled.search(text(p.read_text(encoding="utf-8")))] == []


def test_no_page_has_an_empty_tab_or_an_empty_block_of_code() -> None:
    blocks = re.compile(r'<div class="tabbed-block">(.*?)</div>|<pre>(.*?)</pre>', re.DOTALL)
    for page in PAGES:
        for block in blocks.findall(page.read_text(encoding="utf-8")):
            assert text("".join(block)).strip(), page


def test_the_reference_shows_each_public_name_method_and_field() -> None:
    anchors = set[str]()
    for page in REFERENCE:
        anchors.update(re.findall(r'id="dsql_outbox\.([\w.]+)"', page.read_text(encoding="utf-8")))
    wanted = sorted(members())
    assert len(wanted) > 50
    assert [n for n in wanted if not any(f".{a}".endswith(f".{n}") for a in anchors)] == []


def test_signatures_have_annotations() -> None:
    api = text((SITE / "reference" / "api" / "index.html").read_text(encoding="utf-8"))
    assert "event: EventSource" in api
    assert "-> Receipt" in api


def test_no_page_asks_another_host_in_a_reader_s_browser() -> None:
    fetched = re.compile(
        r'<(?:script|img|iframe)[^>]+src="(https?:[^"]+)|'
        r'<link[^>]+rel="(?:stylesheet|preconnect|icon|preload)"[^>]+href="(https?:[^"]+)|'
        r'(data-md-component="source")'  # the theme asks its host for stars
    )
    for page in PAGES:
        assert fetched.findall(page.read_text(encoding="utf-8")) == [], page


def test_a_search_finds_no_decision() -> None:
    index = (SITE / "search" / "search_index.json").read_text(encoding="utf-8")
    assert '"location":"relay/' in index
    assert '"location":"decisions/2' not in index


def test_every_page_is_two_clicks_from_the_first() -> None:
    reached = {SITE / "index.html"}
    for _ in range(2):
        found = {target for page in reached for target in linked(page)}
        reached |= found & set(PAGES)
    assert set(PAGES) - reached - {SITE / "404.html"} == set()


def linked(page: Path) -> Iterator[Path]:
    """The pages that a page links to."""
    for link in re.findall(r'href="([^"#:?]+)', page.read_text(encoding="utf-8")):
        target = (page.parent / link).resolve()
        yield target / "index.html" if target.suffix != ".html" else target

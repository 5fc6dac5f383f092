"""Who may look at the console, and how it is served."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from time import time

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount
from tests.support.commands import Command
from tests.support.console_clients import browsing

from dsql_outbox.console import console_app, serve_console
from dsql_outbox.console.access import Access
from dsql_outbox.console.overview import _change
from dsql_outbox.outbox import Database, SettingsError

pytestmark = pytest.mark.anyio

TOKEN = "a token of some length"
POLICY = "default-src 'none'"


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost", 200),
        ("127.0.0.1:8640", 200),
        ("[::1]:8640", 200),
        ("console.example", 200),
        ("CONSOLE.example:80", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("", 421),
    ],
)
async def test_only_known_hosts_are_answered(url: str, host: str, code: int) -> None:
    async with browsing(Database(url), hosts=["console.example"]) as browser:
        assert (await browser.get("/events", headers={"host": host})).status_code == code


async def test_without_a_token_other_machines_are_refused(url: str) -> None:
    for client, code in [("127.9.9.9", 200), ("::1", 200), ("10.0.0.7", 403), ("strange", 403)]:
        async with browsing(Database(url), client=client) as browser:
            answer = await browser.get("/events")
            assert answer.status_code == code
            assert POLICY in answer.headers["content-security-policy"]


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
async def test_without_a_token_a_proxy_is_refused(url: str, header: str) -> None:
    async with browsing(Database(url)) as browser:
        answer = await browser.get("/events", headers={header: "127.0.0.1"})
        assert (answer.status_code, "set a token" in answer.text) == (403, True)


async def test_a_token_is_asked_for_once(url: str) -> None:
    async with browsing(Database(url), client="10.0.0.7", token=TOKEN) as browser:
        assert (await browser.get("/")).headers["location"] == "/login"
        assert (await browser.get("/live")).status_code == 401
        assert (await browser.get("/static/console.css")).status_code == 200
        form = await browser.get("/login")
        assert form.status_code == 200
        for answer in (form, await browser.get("/static/no"), await browser.put("/login")):
            assert f"on <code>{Database(url).address}" not in answer.text
        for wrong in ("another token of this length", "", "x" * 5000, "\u00e9"):
            answer = await browser.post("/login", data={"token": wrong})
            assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
        answer = await browser.post("/login", data={"token": TOKEN})
        cookie = answer.headers["set-cookie"].lower()
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert {"httponly", "samesite=strict", "path=/"} <= {*cookie.split("; ")}
        assert TOKEN not in cookie
        assert f"on <code>{Database(url).address}" in (await browser.get("/")).text
        name = next(iter(browser.cookies))
    async with browsing(Database(url), token=TOKEN) as browser:
        later, now = str(int(time()) + 9999), str(int(time()) - 1)
        for forged in (later, f"{later}.", Access("another token of it").cookie(), "\u00b2.x", ""):
            answer = await browser.get("/", headers={"cookie": f"{name}={forged}".encode()})
            assert answer.status_code == 303
        expired = f"{now}.{Access(TOKEN)._signature(now)}"
        assert (await browser.get("/", headers={"cookie": f"{name}={expired}"})).status_code == 303


@pytest.mark.parametrize(("proto", "secure"), [("https", True), ("http", False)])
async def test_the_cookie_stays_encrypted_behind_a_proxy(
    url: str, proto: str, *, secure: bool
) -> None:
    async with browsing(Database(url), token=TOKEN) as browser:
        headers = {"x-forwarded-proto": proto}
        answer = await browser.post("/login", data={"token": TOKEN}, headers=headers)
    assert ("; Secure" in answer.headers["set-cookie"]) is secure


async def test_every_answer_has_strict_headers_and_pages_have_no_inline_code(url: str) -> None:
    async with browsing(Database(url)) as browser:
        for path in ("/", "/events", "/static/console.js", "/nowhere"):
            answer = await browser.get(path)
            policy = answer.headers["content-security-policy"]
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert not {"style=", "onclick", "<style", "javascript:"} & {*answer.text.split()}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_pages_are_for_reading(url: str, method: str) -> None:
    async with browsing(Database(url)) as browser:
        for path in ("/", "/failures", "/dead-letters", "/events"):
            assert (await browser.request(method, path)).status_code == 405


async def test_a_mounted_console_links_to_itself(url: str) -> None:
    console = console_app(Database(url), token=TOKEN)
    app = Starlette(routes=[Mount("/outbox", console)])
    transport = httpx.ASGITransport(app=app, client=("10.0.0.7", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as browser:
        assert (await browser.get("/outbox/")).headers["location"] == "/outbox/login"
        answer = await browser.post("/outbox/login", data={"token": TOKEN})
        assert "Path=/outbox" in answer.headers["set-cookie"]
        page = (await browser.get(answer.headers["location"])).text
        assert 'href="/outbox/failures"' in page
        assert 'href="/outbox/static/console.css"' in page
        assert 'href="/outbox/" aria-current' in page
        found = await browser.get("/outbox/events?q=Car/a")
        assert found.headers["location"] == "/outbox/entities?key=Car%2Fa"
        await console.state.console.close()


async def test_it_is_served_live_and_ends_when_it_is_cancelled(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = serve_console(Database(url), port=0, interval=0.05, ready=ready.set_result)
    task = asyncio.create_task(serving)
    address = httpx.URL(await ready)
    async with (
        httpx.AsyncClient(base_url=address, trust_env=False) as browser,
        browser.stream("GET", "/live") as stream,
    ):
        lines = [line async for line in _until(stream, 'id="shards"')]
        assert any('id="reading"' in line for line in lines)
        with pytest.raises(SettingsError, match="address already in use"):
            await serve_console(Database(url), port=address.port or 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
    assert [each for each in caplog.records if each.name.startswith("uvicorn")] == []


async def test_browsers_share_the_rendering_of_a_reading(url: str) -> None:
    app = console_app(Database(url))
    await app.state.console.sampler.read()

    def given(base: str, tries: int) -> str:
        scope = {"type": "http", "app": app, "headers": [], "root_path": base, "path": f"{base}/"}
        return _change(Request(scope), tries)

    first = given("", 1)
    assert given("", 1) is first
    assert 'href="/outbox/failures"' in given("/outbox", 1)
    assert given("", 2) is not first
    await app.state.console.close()


async def _until(stream: httpx.Response, mark: str) -> AsyncGenerator[str]:
    async for line in stream.aiter_lines():
        yield line
        if mark in line:
            return


async def test_it_is_never_open_to_others_by_accident(url: str) -> None:
    for host in ("0.0.0.0", "::", "10.0.0.7", "example.com"):
        with pytest.raises(SettingsError, match="set a token in DSQL_OUTBOX_CONSOLE_TOKEN"):
            await serve_console(Database(url), host=host, port=0)
    with pytest.raises(SettingsError, match="at least 16 characters, got 5"):
        console_app(Database(url), token="short")
    with pytest.raises(SettingsError, match="without a login"):
        console_app(Database(url), jaeger="http://u:p@host")


def test_the_command_serves_until_a_signal(url: str) -> None:
    with Command("console", "--database", url, "--port", 0) as command:
        line = command.line().decode()
        address = line.removeprefix("console at ").partition(": ")[0]
        assert httpx.get(address, trust_env=False).status_code == 200
        command.signal(signal.SIGTERM)
        done = command.finish()
    assert (done.code, done.err) == (0, "")

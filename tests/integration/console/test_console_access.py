"""Who may look at the console, and how it is served."""

import asyncio
import resource
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from functools import partial
from time import time
from typing import Any
from uuid import uuid4

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount
from tests.support.commands import Command, run
from tests.support.console_clients import browsing

from dsql_outbox.console import access, console_app, login_url, serve_console
from dsql_outbox.console.access import SLOW, TRIES, WINDOW, Access, WrongTokens
from dsql_outbox.console.overview import _change
from dsql_outbox.http_server.server import SECURITY_HEADERS
from dsql_outbox.operations import Records
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


@pytest.mark.parametrize("settings", [{}, {"token": TOKEN, "open_to_this_machine": True}])
async def test_a_console_without_a_login_needs_a_word_that_says_so(
    url: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(
        SettingsError, match=r"needs either token=\.\. or open_to_this_machine=True"
    ):
        console_app(Database(url), **settings)
    with pytest.raises(SettingsError, match="needs either"):
        await serve_console(Database(url), port=0, **settings)


async def test_open_to_this_machine_other_machines_are_refused(url: str) -> None:
    for client, code in [("127.9.9.9", 200), ("::1", 200), ("10.0.0.7", 403), ("strange", 403)]:
        async with browsing(Database(url), client=client) as browser:
            answer = await browser.get("/events")
            assert answer.status_code == code
            assert POLICY in answer.headers["content-security-policy"]


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
async def test_open_to_this_machine_a_proxy_is_refused(url: str, header: str) -> None:
    async with browsing(Database(url)) as browser:
        answer = await browser.get("/events", headers={header: "127.0.0.1"})
        assert (answer.status_code, "start it with a token" in answer.text) == (403, True)


async def test_a_token_is_asked_for_once(url: str) -> None:
    async with browsing(Database(url), client="10.0.0.7", token=TOKEN) as browser:
        assert (await browser.get("/")).headers["location"] == "/login"
        assert (await browser.get("/live")).status_code == 401
        assert (await browser.get("/static/console.css")).status_code == 200
        form = await browser.get("/login")
        assert form.status_code == 200
        for answer in (form, await browser.get("/static/no"), await browser.put("/login")):
            assert f"on <code>{Database(url).address}" not in answer.text
        for wrong in ("another token of this length", "", "x" * 5000, "\u00e9", "\0"):
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


@pytest.mark.parametrize(("wrong", "code"), [("", 403), ("?", 403), ("other", 403)])
async def test_a_url_with_the_token_logs_in(url: str, wrong: str, code: int) -> None:
    async with browsing(Database(url), token=TOKEN) as browser:
        assert (await browser.get("/login", params={"token": wrong})).status_code == code
        assert (await browser.get("/")).status_code == 303
        address = httpx.URL(login_url("http://localhost/", TOKEN))
        answer = await browser.get(address)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert TOKEN not in str(answer.headers)
        assert (await browser.get("/")).status_code == 200


@pytest.mark.parametrize("wrong", [TRIES - 1, TRIES, 3 * TRIES])
async def test_wrong_tokens_lock_nobody_out_and_are_logged(
    url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, wrong: int
) -> None:
    """All users of a machine come from one address."""
    monkeypatch.setattr(access, "SLOW", 0.001)
    async with browsing(Database(url), client="127.0.0.1", token=TOKEN) as browser:
        for turn in range(wrong):
            data = {"token": f"a wrong secret {turn}"}
            ask = browser.post("/login", data=data) if turn % 2 else None
            answer = await (ask or browser.get("/login", params=data))
            assert answer.status_code == 403
            assert POLICY in answer.headers["content-security-policy"]
        assert (await browser.post("/login", data={"token": TOKEN})).status_code == 303
        assert (await browser.get("/")).status_code == 200
    warned = [each.getMessage() for each in caplog.records]
    assert warned.count("console: wrong token from 127.0.0.1") == min(wrong, TRIES)
    slow = [each for each in warned if "its logins are slow" in each]
    assert len(slow) == (wrong >= TRIES)
    assert "secret" not in caplog.text


def test_after_ten_wrong_tokens_the_logins_of_an_address_are_slow_for_a_minute() -> None:
    now = 0.0
    wrong = WrongTokens(now=lambda: now)
    for turn in range(5_000):
        wrong.add(f"10.0.{turn}")
    assert len(wrong._tries) == 1_024
    for _ in range(TRIES):
        assert wrong.delay("10.9.9.9") == 0
        wrong.add("10.9.9.9")
    assert (wrong.delay("10.9.9.9"), wrong.delay("10.9.9.8")) == (SLOW, 0)
    now = WINDOW
    assert wrong.delay("10.9.9.9") == 0
    wrong.add("10.9.9.9")
    assert wrong.delay("10.9.9.9") == 0
    for _ in range(TRIES - 1):
        wrong.add("10.9.9.9")
    assert wrong.delay("10.9.9.9") == SLOW, "the next minute counts anew"


def test_consoles_on_one_host_keep_their_logins_apart() -> None:
    names = {Access(token).cookie_name for token in (TOKEN, f"{TOKEN} more", "x" * 16)}
    assert len(names) == 3


async def test_a_fault_of_the_console_has_the_headers_too(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fault(*_: object) -> None:
        raise RuntimeError("a bug")

    async with browsing(Database(url)) as browser:
        monkeypatch.setattr(Records, "event", fault)
        answer = await browser.get(f"/events/{uuid4()}")
        assert answer.status_code == 500
        assert (
            SECURITY_HEADERS.items()
            <= {name: answer.headers.get(name) for name in SECURITY_HEADERS}.items()
        )
        assert "a bug" not in answer.text
    assert "could not be answered" in caplog.text


@pytest.mark.parametrize(
    "path", ["/%ff", "/events?q=%ff%00", "/entities?key=%ff/%00", "/static/%ff"]
)
async def test_a_path_that_is_no_utf_8_is_answered(url: str, path: str) -> None:
    async with browsing(Database(url)) as browser:
        answer = await browser.get(path, follow_redirects=True)
    assert answer.status_code in {400, 404}
    assert POLICY in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("proto", "secure"),
    [
        ("https", True),
        ("http", False),
        ("https, http", True),
        ("HTTPS,http,http", True),
        ("http, https", False),
    ],
)
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
        for path in ("/", "/messages", "/events"):
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
        assert 'href="/outbox/messages?state=failing"' in page
        assert 'href="/outbox/static/console.css"' in page
        assert 'href="/outbox/" aria-current' in page
        found = await browser.get("/outbox/events?q=Car/a")
        assert found.headers["location"] == "/outbox/entities?key=Car%2Fa"
        await console.state.console.close()


async def test_it_is_served_live_and_ends_when_it_is_cancelled(url: str) -> None:
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serve = partial(serve_console, Database(url), open_to_this_machine=True)
    serving = serve(port=0, interval=0.05, ready=ready.set_result)
    task = asyncio.create_task(serving)
    address = httpx.URL(await ready)
    async with (
        httpx.AsyncClient(base_url=address, trust_env=False) as browser,
        browser.stream("GET", "/live") as stream,
    ):
        lines = [line async for line in _until(stream, 'id="shards"')]
        assert any('id="reading"' in line for line in lines)
        with pytest.raises(SettingsError, match="address already in use"):
            await serve(port=address.port or 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)


async def test_browsers_share_the_rendering_of_a_reading(url: str) -> None:
    app = console_app(Database(url), open_to_this_machine=True)
    await app.state.console.sampler.read()

    def given(base: str, tries: int) -> str:
        scope = {"type": "http", "app": app, "headers": [], "root_path": base, "path": f"{base}/"}
        return _change(Request(scope), tries)

    first = given("", 1)
    assert given("", 1) is first
    assert 'href="/outbox/messages?state=failing"' in given("/outbox", 1)
    assert given("", 2) is not first
    await app.state.console.close()


async def _until(stream: httpx.Response, mark: str) -> AsyncGenerator[str]:
    async for line in stream.aiter_lines():
        yield line
        if mark in line:
            return


async def test_it_is_never_open_to_others_by_accident(url: str) -> None:
    for host in ("0.0.0.0", "::", "10.0.0.7", "example.com", ""):
        with pytest.raises(SettingsError, match="would be open to other machines"):
            await serve_console(Database(url), host=host, port=0, open_to_this_machine=True)
    with pytest.raises(SettingsError, match="at least 16 characters, got 5"):
        console_app(Database(url), token="short")
    with pytest.raises(SettingsError, match="without a login"):
        console_app(Database(url), token=TOKEN, jaeger="http://u:p@host")


def printed(command: Command) -> str:
    """The URL that the command prints."""
    return command.line().decode().removeprefix("console at ").partition(" ")[0]


@pytest.mark.parametrize("word", [None, TOKEN, "--open-to-this-machine"])
def test_the_command_asks_for_a_login_unless_a_word_opens_it(url: str, word: str | None) -> None:
    options = [word] if word and word.startswith("--") else []
    env = {"DSQL_OUTBOX_CONSOLE_TOKEN": TOKEN if word == TOKEN else ""}
    with Command("console", "--database", url, "--port", 0, *options, env=env) as command:
        address = httpx.URL(printed(command))
        assert bool(address.params.get("token")) is (word is None)
        assert TOKEN not in str(address)
        with httpx.Client(
            base_url=address.copy_with(path="/", query=None), trust_env=False
        ) as browser:
            # As nginx asks by its defaults: the host of the server behind it, and no more.
            found = browser.get("/", headers={"host": f"127.0.0.1:{address.port}"})
            assert found.status_code == (200 if options else 303)
            if word is None:
                assert browser.get(address).status_code == 303
                assert browser.get("/").status_code == 200
            if word == TOKEN:
                assert browser.post("/login", data={"token": "wrong"}).status_code == 403
        command.signal(signal.SIGTERM)
        done = command.finish()
    assert done.code == 0
    assert ("wrong token from 127.0.0.1" in done.err) is (word == TOKEN)
    assert "Traceback" not in done.err


async def test_the_url_of_a_wildcard_is_one_that_a_browser_reaches(url: str) -> None:
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = serve_console(
        Database(url), host="0.0.0.0", port=0, token=TOKEN, ready=ready.set_result
    )
    task = asyncio.create_task(serving)
    async with httpx.AsyncClient(trust_env=False, follow_redirects=True) as browser:
        assert (await browser.get(login_url(await ready, TOKEN))).status_code == 200
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_token_and_the_word_that_opens_it_contradict(url: str) -> None:
    words = ("console", "--database", url, "--open-to-this-machine")
    done = run(*words, env={"DSQL_OUTBOX_CONSOLE_TOKEN": TOKEN})
    assert (done.code, "asks for no token" in done.err) == (2, True)
    assert TOKEN not in done.err


@pytest.mark.parametrize(("descriptors", "clients"), [(256, 300), (64, 150)])
def test_silent_clients_do_not_stop_the_command(url: str, descriptors: int, clients: int) -> None:
    with Command("console", "--database", url, "--port", 0) as command, ExitStack() as stack:
        address = httpx.URL(printed(command))
        resource.prlimit(command.pid, resource.RLIMIT_NOFILE, (descriptors, descriptors))
        for _ in range(clients):
            stack.enter_context(socket.create_connection((address.host, address.port or 0), 30))
        assert httpx.get(address, trust_env=False, timeout=30).status_code == 303
        command.signal(signal.SIGTERM)
        done = command.finish()
    assert done.code == 0
    assert len(done.err) < 1000

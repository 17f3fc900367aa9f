"""The page in a real Chromium, over a real worker: by keyboard, narrow, hostile, with a second tab."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from interp.cli.serve import ServeSettings, command_of
from interp.serve.app import Explorer, application
from interp.serve.connections import server
from interp.serve.jobs import Queue, Worker
from interp.serve.runs import Index
from tests.interp.serve.chromium import Page, chromium, program
from tests.interp.serve.test_runs import made
from tests.tiny import build, tokenizer

pytestmark = [
    pytest.mark.slow,  # a minute, where Chromium is installed
    pytest.mark.skipif(program() is None, reason="Chromium is not installed"),
]
TOKEN = "a-secret"
HOSTILE = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\"> w01"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a tiny model in a process of its own, and two runs."""
    folder = tmp_path_factory.mktemp("explorer")
    build("llama").save_pretrained(folder / "tiny")
    tokenizer().save_pretrained(folder / "tiny")
    made(folder / "runs/first", 1.0, verdict=HOSTILE)
    made(folder / "runs/second", 2.0, seed=1)
    line, environment = command_of(ServeSettings(model=str(folder / "tiny"), offline=True))
    queue = Queue(Worker(line, environment=environment), limit=60.0)
    queue.worker.start()
    queue.start()
    heard = socket.create_server(("127.0.0.1", 0))
    port = heard.getsockname()[1]
    guarded = application(Explorer(Index([folder / "runs"]), queue), TOKEN, port)

    serving = server(guarded)
    thread = threading.Thread(target=serving.run, kwargs={"sockets": [heard]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{port}/"
    serving.should_exit = True
    thread.join(10)
    queue.close()
    heard.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, address: str) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("chromium")) as found:
        found.size(1280)
        found.go(f"{address}#token={TOKEN}")
        found.until("document.querySelectorAll('#views button').length > 5")
        yield found


def ask(page: Page, view: str, **fields: str) -> None:
    page.js(f"document.querySelector('#views button[data-name={view}]').click()")
    for name, value in fields.items():
        page.js(f"document.getElementById('main-{name}').value = {value!r}")
    page.js("document.querySelector('#form form').requestSubmit()")
    page.until("document.getElementById('status').textContent.startsWith('Done')")


def test_the_secret_leaves_the_address_and_stays_in_the_tab(page: Page, address: str) -> None:
    assert TOKEN not in page.js("location.href") and page.js("document.cookie") == ""
    assert page.js("sessionStorage.getItem('interp-token')") == TOKEN
    assert page.js("fetch('/api/about').then((one) => one.status)") == 401


def test_a_cell_is_chosen_and_edited_by_keyboard_alone(page: Page) -> None:
    ask(page, "lens", prompt="w01 w02 w03", layers="all")
    page.js("document.querySelector('#result .mark[tabindex=\"0\"]').focus()")
    for key in ("ArrowRight", "ArrowUp"):
        page.key(key)
    label = page.js("document.activeElement.getAttribute('aria-label')")
    assert label.startswith("layer 1, token of the prompt 1")
    page.key("Enter")
    assert page.js("document.activeElement.id") == "place-title"
    assert page.js("document.getElementById('place-site').value") == "resid_post.1"
    for _ in range(40):
        page.key("Tab")
        if page.js("document.activeElement.type") == "submit":
            break
    page.key("Enter")
    page.until("document.getElementById('place-status').textContent.startsWith('Done')")
    text = page.js("document.getElementById('place-result').innerText")
    assert "with resid_post.1 at token 1" in text and "Noise floor" in text and "interp edit" in text
    assert page.js("document.getElementById('place-status').getAttribute('aria-live')") == "polite"


def test_nothing_hostile_runs_and_nothing_leaves_the_page(page: Page, address: str) -> None:
    ask(page, "tokens", prompt=HOSTILE)
    assert "<script>" in page.js("document.getElementById('result').innerText")
    page.js("document.querySelector('#views button[data-name=runs]').click()")
    page.until("document.querySelectorAll('#result td').length > 3")
    assert "<script>" in page.js("document.getElementById('result').innerText")
    page.js("[...document.querySelectorAll('.link')].find((one) => one.textContent === 'first').click()")
    page.until("document.querySelectorAll('#result .copy').length")
    assert page.js("document.title") == "interp explorer"
    assert page.js("document.querySelectorAll('#result script, #result [onerror]').length") == 0
    asked = [
        one["params"]["request"]["url"]
        for one in page.said
        if one.get("method") == "Network.requestWillBeSent"
    ]
    assert asked and all(one.startswith((address, "data:", "about:")) for one in asked)
    wrong = [one["params"] for one in page.said if one.get("method") == "Runtime.exceptionThrown"]
    blocked = [one["params"]["entry"] for one in page.said if one.get("method") == "Log.entryAdded"]
    assert not wrong and not [one for one in blocked if "Content Security Policy" in one["text"]]


def test_two_runs_are_compared(page: Page) -> None:
    page.js("document.querySelector('#views button[data-name=runs]').click()")
    page.until("document.querySelectorAll('#result input').length === 2")
    page.js("document.querySelectorAll('#result input').forEach((one) => one.click())")
    page.js("document.querySelector('#form .actions button').click()")
    page.until("document.getElementById('result').innerText.includes('Two runs side by side')")
    assert "overlap" in page.js("document.getElementById('result').innerText")


def test_a_narrow_page_does_not_scroll_sideways(page: Page) -> None:
    ask(page, "attention", prompt="w01 w02 w03 w04 w05 w06 w07 w08", layers="all")
    for width in (420, 1280):
        page.size(width)
        time.sleep(0.1)
        assert page.js("document.documentElement.scrollWidth") <= width
    page.size(420)
    ask(page, "attention", prompt="w01 w02 w03 w04 w05 w06 w07 w08", layers="all")
    drawn = "[...document.querySelectorAll('#result .drawing')]"
    wide = f"{drawn}.filter((one) => one.scrollWidth > one.clientWidth)"
    assert page.js(f"{wide}.length") > 0
    assert page.js(f"{wide}.every((one) => one.previousElementSibling?.className === 'note hint')")
    page.size(1280)


def test_a_second_tab_shares_the_queue_and_a_slow_job_is_cancelled(page: Page, address: str) -> None:
    page.size(1280)
    other = {"view": "tokens", "request": {"prompt": "w01 w02 " * 20, "draws": 200}}
    send = (
        "fetch('/api/jobs', {method: 'POST', headers: {'Content-Type': 'application/json', 'X-Interp-Token': "
    )
    for _ in range(12):  # so that the page's own job waits
        page.js(f"{send}{TOKEN!r}}}, body: JSON.stringify({other})}}).then((one) => one.status)")
    page.js("document.querySelector('#views button[data-name=tokens]').click()")
    page.js("document.querySelector('#form form').requestSubmit()")
    page.until("!document.getElementById('cancel').hidden")
    page.js("document.getElementById('cancel').click()")
    page.until("/^(Stopped|Done)/.test(document.getElementById('status').textContent)")
    assert page.js("document.getElementById('status').textContent").startswith("Stopped")


def test_a_refused_question_leaves_no_numbers_of_the_last_one(page: Page) -> None:
    ask(page, "edit", prompt="w01 w02 w03", site="resid_post.1")
    assert "Noise floor" in page.js("document.getElementById('result').innerText")
    page.js("document.getElementById('main-site').value = 'nowhere'")
    page.js("document.querySelector('#form form').requestSubmit()")
    page.until("document.getElementById('status').classList.contains('wrong')")
    assert page.js("document.getElementById('result').innerText") == ""


def test_a_closed_tab_keeps_nobody_waiting(page: Page, address: str) -> None:
    slow = {"view": "tokens", "request": {"prompt": "w01 w02 " * 20, "draws": 200}}
    heads = {"Content-Type": "application/json", "X-Interp-Token": TOKEN}
    sent = {"method": "POST", "headers": heads, "body": json.dumps(slow)}
    for _ in range(12):  # so that the page's own job waits
        assert page.js(f"fetch('/api/jobs', {json.dumps(sent)}).then((one) => one.status)") == 202
    page.js("document.querySelector('#views button[data-name=tokens]').click()")
    page.said.clear()
    page.js("document.querySelector('#form form').requestSubmit()")
    page.until("!document.getElementById('cancel').hidden")
    page.until("document.getElementById('status').textContent.startsWith('Waiting')")
    urls = [one["params"]["request"]["url"] for one in page.said if one["method"].endswith("WillBeSent")]
    job = next(one for one in urls if "/api/jobs/" in one)
    page.go("about:blank")
    page.go(address)
    page.until("document.querySelectorAll('#views button').length > 5")
    heads.pop("Content-Type")
    told = page.js(f"fetch({job!r}, {json.dumps({'headers': heads})}).then((one) => one.json())")
    assert (told["state"], told["error"]) == ("stopped", "cancelled")


def test_without_the_secret_the_page_says_what_to_do(page: Page, address: str) -> None:
    page.js("sessionStorage.clear()")
    page.go(address)
    page.until("document.getElementById('alert')?.hidden === false")
    assert "interp serve printed" in page.js("document.getElementById('alert').innerText")

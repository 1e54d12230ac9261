"""The page in a real browser: every view, by mouse and keyboard, light and dark, and what axe-core says of it.

Only where the environment variable `STEADFACE_BROWSER` names a Chromium: a browser takes a while.
"""

import base64
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from steadface.service.admission import Doors
from steadface.service.application import Service, application
from steadface.service.bench import Bench, Worker, second_model
from steadface.service.keys import Keys
from steadface.service.server import Address, listening

BROWSER = os.environ.get("STEADFACE_BROWSER")
if not BROWSER:
    pytest.skip("set STEADFACE_BROWSER to the path of a Chromium", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

VIEWS = ("verify", "identify", "enrol", "people", "bench", "model", "log", "keys", "key")
HIDDEN = ["--no-sandbox", "--disable-gpu", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
LONG = 120_000
"""Milliseconds that something may take on a busy machine."""


@dataclass
class Reader:
    """Somebody at the page, and what the browser complained of."""

    page: Any
    url: str
    complaints: list[str] = field(default_factory=list)

    def open(self, view: str) -> None:
        self.page.goto(f"{self.url}/#{view}")
        self.page.locator(f".at-{view} h1").wait_for()
        self.page.locator("main:not([aria-busy])").wait_for()

    def give(self, place: int, *pictures: bytes) -> None:
        files = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": one} for n, one in enumerate(pictures)]
        self.page.locator("input[type=file]").nth(place).set_input_files(files)

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def answer(self) -> str:
        self.page.locator(".answer .verdict, .answer .notice").first.wait_for()
        return str(self.page.locator(".answer").first.inner_text())

    def faults(self) -> list[str]:
        """What axe-core finds by WCAG 2.2 A and AA."""
        rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
        found = axe.Axe().run(self.page, options=rules).response["violations"]
        return [f"{one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]


def serving(service: Service) -> Iterator[str]:
    with listening(Address(port=0)) as here:
        server = uvicorn.Server(uvicorn.Config(application(service), log_config=None, ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [here]})
        thread.start()
        yield f"http://127.0.0.1:{here.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def service(collections, model) -> Iterator[str]:
    found, _ = collections
    bench = Bench(second=second_model(str(model)), worker=lambda: Worker(nice=1))
    yield from serving(Service(collections=found, doors=Doors(workers=8, waiting=8), bench=bench))


@pytest.fixture(scope="module")
def keyed(collections, tmp_path_factory) -> Iterator[tuple[str, Keys]]:
    found, _ = collections
    keys = Keys.create(tmp_path_factory.mktemp("keys") / "keys.json")
    for url in serving(Service(collections=found, keys=keys, doors=Doors(workers=8, waiting=8))):
        yield url, keys


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=HIDDEN)
        yield browser
        browser.close()


@pytest.fixture
def sat_down(chromium) -> Iterator[Any]:
    contexts = []

    def sit_down(url: str, *, width: int = 1280, scheme: str = "light", allowed: tuple[int, ...] = ()) -> Reader:
        context = chromium.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            reduced_motion="reduce",
            permissions=["camera"],
        )
        contexts.append(context)
        context.set_default_timeout(LONG)
        reader = Reader(page=context.new_page(), url=url)

        def complain(message: Any) -> None:
            expected = any(f"status of {status}" in message.text for status in allowed)
            if message.type in ("error", "warning") and not expected:
                reader.complaints.append(message.text)

        reader.page.on("console", complain)
        reader.page.on("pageerror", lambda error: reader.complaints.append(str(error)))
        return reader

    yield sit_down
    for context in contexts:
        context.close()


def test_somebody_is_enrolled_found_verified_renamed_and_removed(service, sat_down, pngs) -> None:
    reader = sat_down(service)
    page = reader.page
    reader.open("enrol")
    page.get_by_label("Name", exact=True).fill("Ada <b>L</b>")
    reader.give(0, pngs[0][0])
    page.get_by_label("Consent").fill("agreed on paper")
    page.get_by_label("These are aligned").check()
    reader.press("Enrol")
    page.get_by_text("Nobody is enrolled here who has not agreed").wait_for()
    page.get_by_label("This person has agreed").check()
    reader.press("Enrol")
    assert "Ada <b>L</b> is enrolled" in reader.answer()  # as text

    reader.open("identify")
    page.get_by_label("This is an aligned face").check()
    page.get_by_label("How often").select_option(index=1)
    for person, said in ((0, "Ada <b>L</b>"), (9, "Nobody")):
        reader.give(0, pngs[person][0])
        page.locator(".answer .verdict").wait_for(state="detached")
        reader.press("Identify")
        assert said in reader.answer()
    assert page.locator(".answer .bar").get_attribute("aria-label").startswith("similarity")
    assert not reader.faults()

    reader.open("verify")
    page.get_by_label("These are aligned").check()
    reader.give(0, pngs[0][0])
    reader.give(1, pngs[0][0])
    reader.press("Compare")
    assert "Taken for one person" in reader.answer()
    assert not reader.faults()

    reader.open("people")
    page.get_by_role("button", name="Rename Ada").click()
    page.get_by_label("New name").fill("Grace")
    page.get_by_role("dialog").get_by_role("button", name="Rename").click()
    page.get_by_role("heading", name="Grace").wait_for()
    page.get_by_label("Search by name").fill("nobody so")
    page.get_by_role("heading", name="Grace").wait_for(state="detached")
    page.get_by_label("Search by name").fill("GRA")
    page.get_by_role("button", name="Remove Grace").focus()
    page.keyboard.press("Enter")
    assert not reader.faults()  # with the question open
    page.keyboard.press("Escape")
    page.get_by_role("heading", name="Grace").wait_for()
    page.get_by_role("button", name="Remove Grace").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    page.get_by_role("region", name="Receipt").wait_for()
    page.get_by_role("heading", name="Grace").wait_for(state="detached")
    assert not reader.complaints


def test_an_attack_is_watched_to_its_end(service, sat_down, pngs) -> None:
    reader = sat_down(service)
    page = reader.page
    reader.open("bench")
    reader.press("Attack")
    page.get_by_text("Choose two pictures first.").wait_for()
    page.get_by_label("These are aligned").check()
    reader.give(0, pngs[0][0])
    reader.give(1, pngs[0][1])
    page.get_by_role("slider", name="Steps").focus()
    page.keyboard.press("Home")
    reader.press("Attack")
    page.locator(".told .verdict").nth(1).wait_for()
    assert page.locator(".chart .curve").count() == 2
    assert not reader.faults()
    assert not reader.complaints


def test_an_attack_is_stopped_and_the_next_one_runs(service, sat_down, pngs) -> None:
    reader = sat_down(service)
    page = reader.page
    reader.open("bench")
    page.get_by_label("These are aligned").check()
    reader.give(0, pngs[0][0])
    reader.give(1, pngs[0][1])
    page.get_by_role("slider", name="Steps").press("End")
    reader.press("Attack")
    page.get_by_text("The attack runs.").wait_for()
    reader.press("Stop")
    page.get_by_text("Stopped.").wait_for()
    page.get_by_role("slider", name="Steps").press("Home")
    reader.press("Attack")
    page.locator(".told .verdict").nth(1).wait_for()
    assert not reader.complaints


DROPPED = """([selector, kind, base64]) => {
    const bytes = Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], "a.png", { type: "image/png" }));
    const more = kind === "paste" ? { clipboardData: data } : { dataTransfer: data };
    const event = kind === "paste" ? new ClipboardEvent(kind, { ...more, bubbles: true, cancelable: true })
                                   : new DragEvent(kind, { ...more, bubbles: true, cancelable: true });
    document.querySelector(selector).dispatchEvent(event);
}"""


def test_pictures_are_pasted_where_there_is_room_and_dropped_where_they_fall(service, sat_down, pngs) -> None:
    reader = sat_down(service)
    page = reader.page
    reader.open("verify")
    picture = base64.b64encode(pngs[0][0]).decode()
    page.evaluate(DROPPED, ["body", "paste", picture])
    page.get_by_role("img", name="First picture").wait_for()
    assert page.get_by_role("img", name="Second picture").count() == 0
    page.evaluate(DROPPED, ["body", "paste", picture])
    page.get_by_role("img", name="Second picture").wait_for()
    page.locator("fieldset", has_text="First picture").get_by_role("button", name="Clear").click()
    page.get_by_role("img", name="First picture").wait_for(state="detached")
    page.evaluate(DROPPED, [".frame", "drop", picture])
    page.get_by_role("img", name="First picture").wait_for()
    assert not reader.complaints


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark"), (360, "light"), (3840, "dark")])
def test_every_view_fits_and_axe_finds_nothing(service, sat_down, width, scheme) -> None:
    reader = sat_down(service, width=width, scheme=scheme)
    for view in VIEWS:
        reader.open(view)
        assert not reader.faults(), view
        assert reader.page.evaluate("document.documentElement.scrollWidth") <= width, view
    assert not reader.complaints


def test_the_live_picture_is_looked_at_and_the_camera_given_back(service, sat_down) -> None:
    reader = sat_down(service, allowed=(422, 503))  # the tests' service may have no detector
    page = reader.page
    reader.open("identify")
    reader.press("Start the camera")
    page.locator(".spoken:not(:empty), .apart .notice").first.wait_for()
    reader.open("verify")
    assert not reader.complaints


def test_a_key_is_asked_for_kept_in_memory_and_shown_as_a_state(keyed, sat_down) -> None:
    url, keys = keyed
    _, token = keys.make("front desk", ["admin"], shows="rounded")
    reader = sat_down(url, allowed=(401,))
    page = reader.page
    page.goto(url)
    page.get_by_label("API key").fill("sf_00000000_wrong")
    reader.press("Use this key")
    page.get_by_role("strong").get_by_text("Unauthorized").wait_for()
    page.get_by_label("API key").fill(token)
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Key: front desk").wait_for()
    stored = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])")
    assert token not in stored

    page.get_by_role("link", name="Keys", exact=True).click()
    page.locator(".at-keys form").wait_for()
    page.get_by_label("Name", exact=True).fill("door 3")
    page.get_by_label("identify: search").check()
    reader.press("Make the key")
    made = page.locator(".secret").inner_text()
    found = keys.find(made)
    assert (found.name, found.scopes, found.shows) == ("door 3", ("identify",), "rounded")
    assert not reader.faults()
    page.get_by_role("button", name="Revoke door 3").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    page.get_by_text("door 3 opens nothing any more").wait_for()
    assert keys.find(made) is None

    page.reload()
    page.get_by_label("API key").wait_for()  # forgotten
    assert not reader.complaints


def test_a_key_sees_only_the_views_it_is_for(keyed, sat_down) -> None:
    url, keys = keyed
    _, token = keys.make("door", ["verify"], shows="decision")
    reader = sat_down(url, allowed=(401,))
    page = reader.page
    page.goto(url)
    page.get_by_label("API key").fill(token)
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Key: door").wait_for()
    assert page.locator("nav a").all_inner_texts() == ["Verify", "Model"]
    assert not reader.complaints

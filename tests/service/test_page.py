"""The page: files of the package, under a policy that lets nothing else in."""

import re
from importlib.resources import files
from pathlib import Path

from steadface.service.routes.page import MEDIA, assets

from .conftest import Desk, Sat

PAGE = Path(str(files("steadface.service") / "page"))
FILES = sorted(path.name for path in PAGE.iterdir() if path.suffix in MEDIA)


def test_the_page_is_there_without_a_key_under_a_strict_policy(sit: Sat) -> None:
    said = sit(keys=True).client.get("/")
    assert said.status_code == 200
    assert said.headers["content-type"].startswith("text/html")
    policy = dict(part.strip().partition(" ")[::2] for part in said.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"


def test_each_file_is_served_as_what_it_is_and_kept_while_it_is_the_same(desk: Desk) -> None:
    assert {"index.html", "style.css", "app.js", "bench.js"} <= set(FILES)
    for name in FILES:
        said = desk.client.get(f"/page/{name}")
        assert said.content == (PAGE / name).read_bytes()
        assert said.headers["content-type"].split(";")[0] == MEDIA[Path(name).suffix]
        assert said.headers["x-content-type-options"] == "nosniff"
        again = desk.client.get(f"/page/{name}", headers={"If-None-Match": said.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert "no-cache" in again.headers["cache-control"]


def test_nothing_else_is_served(desk: Desk) -> None:
    for path in ("../application.py", "..%2fapplication.py", "%2e%2e/keys.py", ".", "index", "a.js", "/etc/passwd"):
        said = desk.client.get(f"/page/{path}")
        assert said.status_code in (404, 405), path
        assert said.headers["content-type"] == "application/problem+json"


def test_modules_and_links_lead_to_files_of_the_page_and_nowhere_else() -> None:
    for name in FILES:
        text = (PAGE / name).read_text()
        for other in re.findall(r"""(?:from|import)\s*\(?["'`]\./([\w.]+)["']""", text):
            assert other in assets(), (name, other)
        for other in re.findall(r"""(?:src|href)="/page/([^"]+)""", text):
            assert other in assets(), (name, other)
        elsewhere = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)))
        assert elsewhere <= {"http://www.w3.org"}, name  # the name of SVG, which nobody fetches


def test_what_is_shown_is_text_and_never_markup() -> None:
    for name in FILES:
        code = re.sub(r"//.*", "", (PAGE / name).read_text())
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", code), (
            name
        )
        if name.endswith(".html"):
            assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?![^>]*\bsrc=)", code)


def test_the_key_is_written_nowhere() -> None:
    for name in FILES:
        assert not re.search(r"localStorage|sessionStorage|document\.cookie|indexedDB", (PAGE / name).read_text()), name


def test_who_asks_is_told_what_the_key_is_good_for(sit: Sat) -> None:
    desk = sit(keys=True)
    told = desk.client.get("/v1/key", headers=desk.key("verify", "audit", shows="decision")).json()
    assert (told["scopes"], told["shows"], told["needed"]) == (["verify", "audit"], "decision", True)
    assert not {"digest", "key"} & told.keys()
    assert desk.client.get("/v1/key").status_code == 401


def test_without_keys_nobody_needs_one(desk: Desk) -> None:
    told = desk.client.get("/v1/key").json()
    assert (told["needed"], told["scopes"]) == (False, ["admin"])

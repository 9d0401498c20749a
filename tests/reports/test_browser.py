"""The page in a real browser: it opens from disk, its filters work, and nothing is asked of any network."""

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from regrade.reports.html_report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install chromium to test the page in a browser"),
]
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")

DRIVER = """
const seen = {};
const shown = () => tasks.filter((task) => !task.hidden).map((task) => task.querySelector("summary small").textContent);
const set = (each, value) => { each.value = value; each.dispatchEvent(new Event("input")); };
seen.start = [shown().length, status.textContent];
document.querySelector(".cell.both").click();
seen.both = shown().length;
document.querySelector("#all").click();
seen.all = shown().length;
set(search, "task-03");
seen.search = shown();
set(search, "");
set(repository, "repo1");
seen.repository = shown().length;
set(repository, "");
set(policy, "sft"); set(outcome, "breakage");
seen.broke = shown().length;
set(sort, "name");
showAll();
seen.sorted = [...document.querySelectorAll(".task .name")].map((each) => each.firstChild.textContent);
set(policy, "no such");
const point = [...document.querySelectorAll(".pick")].find((each) => each.dataset.repository === "repo0");
point.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
seen.point = [repository.value, policy.value, shown().length];
const bar = [...document.querySelectorAll(".pick")].find((each) => (each.dataset.outcome || "").startsWith("severity"));
bar.dispatchEvent(new MouseEvent("click"));
seen.bar = [policy.value, outcome.value, shown().length];
const best = [...document.querySelectorAll(".pick")].find((each) => each.dataset.outcome === "breakage");
best.dispatchEvent(new MouseEvent("click"));
seen.best = [policy.value, outcome.value, shown().length];
const heading = document.querySelector("table.sortable th button");
heading.click();
seen.table = heading.parentNode.getAttribute("aria-sort");
location.hash = "#task-5";
openLinked();
seen.linked = [tasks[4].open, tasks[4].hidden];
seen.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
seen.requests = performance.getEntriesByType("resource").map((each) => each.name);
const result = document.createElement("pre");
result.id = "result-of-test";
result.textContent = JSON.stringify(seen);
document.body.append(result);
"""


def browse(page: Path, *more: str) -> tuple[str, str]:
    """(the page as it is after its scripts have run, what the browser logged)."""
    with tempfile.TemporaryDirectory() as profile:
        found = subprocess.run(
            [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "--enable-logging=stderr", *more, page.as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    return found.stdout, found.stderr


def console(log: str) -> list[str]:
    return [line for line in log.splitlines() if ":CONSOLE" in line]


@pytest.fixture(scope="module")
def page(finished_run) -> Path:
    return write_report(finished_run)


@pytest.fixture(scope="module")
def driven(page, tmp_path_factory):
    """What the page did when its controls were used; as wide as a phone."""
    path = tmp_path_factory.mktemp("driven") / "report.html"
    text = page.read_text(encoding="utf-8")
    path.write_text(text.replace("</script>", DRIVER + "</script>"), encoding="utf-8")
    dom, log = browse(path, "--window-size=500,900", "--dump-dom")
    assert not console(log)
    found = re.search(r'<pre id="result-of-test">(.*?)</pre>', dom)
    assert found, dom[-2000:]
    return json.loads(found[1])


def asked_for(page: Path, net: Path) -> set[str]:
    """Addresses that the page itself asked for, by the browser's own log of its network."""
    browse(page, "--dump-dom", f"--log-net-log={net}", "--net-log-capture-mode=Everything")
    events = json.loads(net.read_text(encoding="utf-8"))["events"]
    params = [event.get("params", {}) for event in events]
    mine = [each for each in params if str(each.get("network_isolation_key", "")).startswith("file:")]  # not Chromium's
    return {each["url"] for each in mine if "url" in each}


def test_the_page_opens_from_disk_without_an_error(page):
    dom, log = browse(page, "--dump-dom")
    assert not console(log)
    assert 'class="js"' in dom


def test_the_page_asks_no_network_even_where_it_is_allowed_to(page, tmp_path):
    allowed = re.sub(r"<meta http-equiv=[^>]*>", "", page.read_text(encoding="utf-8"))
    path = tmp_path / "allowed.html"
    path.write_text(allowed, encoding="utf-8")
    assert not asked_for(path, tmp_path / "net.json")
    path.write_text(allowed.replace("</main>", '<img src="http://127.0.0.1:9/x.png"></main>'), encoding="utf-8")
    assert asked_for(path, tmp_path / "net.json") == {"http://127.0.0.1:9/x.png"}


def test_an_error_of_a_script_would_be_seen(page, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text(encoding="utf-8").replace("</script>", "nowhere();</script>"), encoding="utf-8")
    assert "nowhere is not defined" in "".join(console(browse(broken, "--dump-dom")[1]))


def test_a_network_is_out_of_reach_of_what_the_page_shows(page, tmp_path):
    reaching = tmp_path / "reaching.html"
    text = page.read_text(encoding="utf-8").replace("</main>", '<img src="http://127.0.0.1:9/x.png"></main>')
    reaching.write_text(text, encoding="utf-8")
    assert "Content Security Policy" in "".join(console(browse(reaching, "--dump-dom")[1]))


def test_tasks_are_filtered_by_side_name_repository_and_outcome(driven):
    assert driven["start"] == [7, "7 of 12 tasks"]
    assert driven["both"] == 9
    assert driven["all"] == 12
    assert driven["search"] == ["repo1 · task-03"]
    assert driven["repository"] == 6
    assert driven["broke"] == 3
    assert driven["sorted"] == [f"m.py::f{number}" for number in range(12)]


def test_a_point_or_a_bar_shows_the_tasks_behind_it_and_a_link_opens_one(driven):
    assert driven["point"] == ["repo0", "", 6]
    assert driven["bar"] == ["sft", "severity 1 test", 3]
    assert driven["best"] == ["sft", "breakage", 3]
    assert driven["linked"] == [True, False]
    assert driven["table"] == "descending"


def test_a_narrow_page_does_not_scroll_sideways_and_loads_nothing(driven):
    assert driven["wide"] <= 0
    assert driven["requests"] == []

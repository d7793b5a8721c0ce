"""The HTML page in a real Chromium: keyboard, dialog, filters, downloads, contrast, hostile names, and 200 x 60 cells."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.collect import main
from tests.pages import HOSTILE, make_page, record, write_hostile, write_results

pytestmark = pytest.mark.browser

N_ROWS, N_COLUMNS, N_TRIALS = 200, 60, 3


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads: Path) -> Iterator[Any]:
    """A headless Chromium that may download into a folder of the tests'."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs Chromium and its driver (Debian packages chromium and chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    found.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    yield found
    found.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A plain page with figures and two rules, and a hostile one, each made once."""
    folder = tmp_path_factory.mktemp("pages")
    write_results(folder / "plain")
    write_results(folder / "plain", dataset="PACS", domains=("A", "C"))
    make_page(folder / "plain", folder / "plain.html", "--selection", "training-domain", "--selection", "last")
    write_hostile(folder / "hostile")
    make_page(folder / "hostile", folder / "hostile.html", "--effects", "--selection", "last")
    return {"folder": folder, "plain": folder / "plain.html", "hostile": folder / "hostile.html"}


@pytest.fixture
def plain(browser: Any, pages: dict[str, Path]) -> Any:
    """The plain page, newly opened in light."""
    return opened(browser, pages["plain"])


def opened(browser: Any, page: Path) -> Any:
    browser.get(page.as_uri())
    browser.execute_script("try { localStorage.clear(); } catch {} delete document.documentElement.dataset.theme;")
    wait(lambda: browser.execute_script("return document.documentElement.dataset.ready === '1'"))
    return browser


def wait(is_there: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait until something is there; what is checked is that it comes, not how fast."""
    end = time.monotonic() + seconds
    while not (found := is_there()):
        assert time.monotonic() < end, "this did not come"
        time.sleep(0.02)
    return found


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    for key in keys:
        ActionChains(browser).send_keys(key).perform()


def focused(browser: Any, what: str = "textContent") -> Any:
    return browser.execute_script(f"return document.activeElement.{what}")


def first_column(browser: Any, table: int = 0) -> list[str]:
    rows = "[...document.querySelectorAll('table.data')[arguments[0]].tBodies[0].rows]"
    script = f"return {rows}.map(r => r.cells[0].textContent)"
    found: list[str] = browser.execute_script(script, table)
    return found


def numbers(browser: Any, column: int) -> list[float]:
    rows = "[...document.querySelector('table.data').tBodies[0].rows]"
    script = f"return {rows}.map(r => parseFloat(r.cells[arguments[0]].textContent))"
    found: list[float] = browser.execute_script(script, column)
    return found


def errors(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def test_the_page_opens_without_an_error_or_a_request(browser: Any, pages: dict[str, Path]) -> None:
    errors(browser), browser.get_log("performance")
    opened(browser, pages["plain"])
    assert errors(browser) == []
    requests = [entry["message"] for entry in browser.get_log("performance") if "requestWillBeSent" in entry["message"]]
    asked = {match for entry in requests for match in re.findall(r'"url":"([^"]+)"', entry)}
    assert asked and all(url.startswith(("file:///", "data:image/png")) for url in asked)
    assert browser.title == "Results on PACS and Icons"
    assert browser.execute_script("return document.documentElement.lang") == "en"


def test_the_skip_link_comes_first_and_leads_to_the_tables(plain: Any) -> None:
    from selenium.webdriver import Keys

    press(plain, Keys.TAB)
    assert focused(plain) == "Skip to the tables"
    assert plain.execute_script("return document.activeElement.getBoundingClientRect().left") >= 0
    press(plain, Keys.ENTER)
    wait(lambda: focused(plain, "id") == "main")


def test_keys_reach_a_heading_and_sort_by_it(plain: Any) -> None:
    from selenium.webdriver import Keys

    before = first_column(plain)
    for _ in range(30):
        press(plain, Keys.TAB)
        if focused(plain, "closest('table.data')"):
            break
    assert focused(plain) == "method"
    press(plain, Keys.ARROW_RIGHT)
    sort = "closest('th').getAttribute('aria-sort')"
    assert focused(plain, sort) == "none"
    press(plain, Keys.ENTER)
    assert focused(plain, sort) == "descending"
    values = numbers(plain, 1)
    assert values == sorted(values, reverse=True) and len(set(values)) > 1
    press(plain, Keys.ENTER)
    assert focused(plain, sort) == "ascending" and numbers(plain, 1) == values[::-1]
    press(plain, Keys.ENTER)
    assert focused(plain, sort) == "none" and first_column(plain) == before


def test_a_cell_opens_its_trials_and_gives_the_focus_back(plain: Any, pages: dict[str, Path], capsys: Any) -> None:
    from selenium.webdriver import Keys

    script = """
        const table = document.querySelectorAll('table.data')[2];
        table.tHead.rows[0].cells[0].firstChild.focus();
        return table.caption.textContent;
    """
    assert "Icons" in plain.execute_script(script)
    press(plain, Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    cell = focused(plain)
    press(plain, Keys.ENTER)
    assert plain.execute_script("return document.getElementById('dialog').open")
    assert focused(plain, "id") == "close"  # the dialog has the focus
    title, body = (plain.find_element("id", name).text for name in ("dialog-title", "dialog-body"))
    assert title == "ERM on Icons, leave one domain out: chalk"
    capsys.readouterr()
    assert main([str(pages["folder"] / "plain"), "--explain", "Icons", "ERM", "chalk"]) == 0
    told = capsys.readouterr().out
    runs = [Path(path) for path in re.findall(r"\S*/sweep/\S+", told)]
    assert len(runs) == 3
    for run in runs:
        line = next(line for line in told.splitlines() if str(run) in line).split()
        assert f"sweep/{run.name}" in body and line[2] in body
    for part in ("training-domain validation", "The number is the mean of its trials.", "lr=0.001", cell[:4]):
        assert part in body
    press(plain, Keys.ESCAPE)
    assert not plain.execute_script("return document.getElementById('dialog').open")
    assert focused(plain) == cell and focused(plain, "tagName") == "TD"
    press(plain, Keys.END, Keys.SPACE)
    assert "the mean of 3 cells" in plain.find_element("id", "dialog-body").text
    assert plain.execute_script("return document.querySelectorAll('#dialog-body tbody tr').length") == 9
    press(plain, Keys.ESCAPE)


def test_filters_keep_the_rows_that_match_and_can_be_undone(plain: Any) -> None:
    from selenium.webdriver import Keys

    plain.find_element("id", "rows").send_keys("clip, zero")
    wait(lambda: plain.find_element("id", "shown").text == "2 of 4 methods")
    shown = """
        return [...document.querySelectorAll('section.rule:not([hidden]) table.data tbody tr')]
            .filter((row) => row.offsetParent).map((row) => row.cells[0].textContent);
    """
    assert set(plain.execute_script(shown)) == {"ZeroShot", "CLIPood"}
    plain.find_element("id", "rows").send_keys(*[Keys.BACKSPACE] * 10)
    wait(lambda: len(set(plain.execute_script(shown))) == 4)


def test_rules_are_tabs_that_arrow_keys_change(plain: Any) -> None:
    from selenium.webdriver import Keys

    tabs = plain.find_elements("css selector", "[role=tab]")
    assert [tab.text for tab in tabs] == ["training-domain", "last"]
    assert [each.is_displayed() for each in plain.find_elements("css selector", "section.rule")] == [True, False]
    tabs[0].click()
    press(plain, Keys.ARROW_RIGHT)
    assert focused(plain) == "last"
    assert [tab.get_attribute("aria-selected") for tab in tabs] == ["false", "true"]
    assert [each.is_displayed() for each in plain.find_elements("css selector", "section.rule")] == [False, True]


_CONTRAST = """
const luminance = (c) => {
  const [r, g, b] = c.slice(0, 3).map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const parse = (colour) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || element.closest("svg, script, .vh") || !element.getClientRects().length) continue;
  let back = element, colour = [0, 0, 0, 0];
  while (back && (colour = parse(getComputedStyle(back).backgroundColor))[3] < 255) back = back.parentElement;
  const [one, other] = [luminance(parse(getComputedStyle(element).color)), luminance(colour)];
  const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  found.push([ratio, element.tagName, element.textContent.slice(0, 30)]);
}
return found;
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_has_enough_contrast(plain: Any, theme: str) -> None:
    """WCAG 2, level AA: 4.5 to 1, of all text that shows, in the dialog too."""
    wished = [{"name": "prefers-color-scheme", "value": theme}]
    plain.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wished})
    plain.execute_script("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    plain.execute_script("document.querySelector('table.data td').click()")
    ratios = plain.execute_script(_CONTRAST)
    assert len(ratios) > 200
    assert [each for each in ratios if each[0] < 4.5] == []
    colour = plain.execute_script("return getComputedStyle(document.body).backgroundColor")
    is_light = min(map(int, re.findall(r"\d+", colour)[:3])) > 200
    assert is_light == (theme == "light")
    plain.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_theme_button_changes_the_theme(plain: Any) -> None:
    script = "return getComputedStyle(document.body).backgroundColor"
    before = plain.execute_script(script)
    button = plain.find_element("id", "theme")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert plain.execute_script(script) != before
    button.click()
    assert plain.execute_script(script) == before


def test_the_page_prints_and_fits_a_small_screen(plain: Any) -> None:
    assert len(plain.execute_cdp_cmd("Page.printToPDF", {})["data"]) > 10_000
    size = {"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    plain.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert plain.execute_script("return document.documentElement.scrollWidth") <= 360
    finally:
        plain.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_hostile_names_do_nothing_and_show_as_they_are(browser: Any, pages: dict[str, Path]) -> None:
    errors(browser)
    opened(browser, pages["hostile"])
    shown = first_column(browser)
    assert shown == [
        name.replace("\x1b", "\\x1b").replace("\x07", "\\x07").replace("\u202e", "\\u202e")
        for name in shown_order(shown)
    ]
    for row in range(len(HOSTILE)):
        script = "document.querySelector('table.data').tBodies[0].rows[arguments[0]].cells[1].click()"
        browser.execute_script(script, row)
        assert browser.find_element("id", "dialog-title").text.startswith(shown[row])
        assert "<b>window.broken=1</b>" in browser.find_element("id", "dialog-body").text
        browser.execute_script("document.getElementById('dialog').close()")
    for head in browser.find_elements("css selector", "table.data th button")[:6]:
        browser.execute_script("arguments[0].click()", head)
    browser.find_element("id", "rows").send_keys("<script>")
    wait(lambda: browser.find_element("id", "shown").text.startswith("2 of"))
    assert browser.execute_script("return typeof window.broken") == "undefined"
    assert (
        browser.execute_script(
            "return document.querySelectorAll('img, iframe, object, main script, main style').length"
        )
        == 0
    )
    assert errors(browser) == []  # the policy had nothing to refuse


def shown_order(shown: list[str]) -> list[str]:
    """The hostile names in the order of the table, each of which must be there."""
    plain = {
        name.replace("\x1b", "\\x1b").replace("\x07", "\\x07").replace("\u202e", "\\u202e"): name for name in HOSTILE
    }
    assert set(shown) == set(plain)
    return [plain[each] for each in shown]


@pytest.mark.parametrize("kind, name", [("csv", "report.csv"), ("json", "report.json"), ("latex", "report.tex")])
def test_downloads_hold_the_bytes_of_the_other_formats(
    browser: Any, pages: dict[str, Path], downloads: Path, tmp_path: Path, kind: str, name: str
) -> None:
    opened(browser, pages["hostile"])
    browser.find_element("css selector", f"[data-download={kind}]").click()
    found = downloads / name
    output = tmp_path / name
    more = ["--selection", "last", "--effects"] if kind != "csv" else ["--selection", "last"]
    assert main([str(pages["folder"] / "hostile"), "--format", kind, *more, "--output", str(output)]) == 0
    wait(lambda: found.is_file() and found.stat().st_size == output.stat().st_size)
    assert found.read_bytes() == output.read_bytes()


def write_large(root: Path) -> None:
    """Write 200 x 60 x 3 trials, in one file a method: making folders is not what is tested."""
    domains = [f"domain {place:02d}" for place in range(N_COLUMNS)]
    for place in range(N_ROWS):
        name = f"Method {place:03d}" if place else "ZeroShot"
        folder = root / f"method{place}"
        folder.mkdir(parents=True)
        lines = []
        for domain in range(N_COLUMNS):
            for trial in range(N_TRIALS):
                told = {"dataset": "Large", "algorithm": name, "backbone": "tiny", "pretrained": "embedded"}
                told |= {
                    "protocol": "leave_one_domain_out",
                    "test_domains": [domain],
                    "trial_seed": trial,
                    "hparams_seed": 0,
                }
                run = f"{place:04x}{domain:04x}{trial:08x}"
                value = record(run, name, domains, domain, place % 7, trial, 50)
                value = {key: each for key, each in value.items() if not key.endswith("_out_acc")}
                value[f"env{domain}_in_acc"] /= 5  # 60 domains, each better than the one before
                lines.append(json.dumps({**told, **value}))
        (folder / "results.jsonl").write_text("\n".join(lines) + "\n")
        (folder / "spec.json").write_text("{}")
        (folder / "status.json").write_text('{"state": "done"}')


def test_a_page_of_200_by_60_cells_is_small_and_quick(
    browser: Any, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    write_large(tmp_path / "results")
    file = tmp_path / "big.html"
    make_page(tmp_path / "results", file, "--selection", "last")
    assert file.stat().st_size < 5_000_000
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})  # processor time: others may be busy
    try:
        opened(browser, file)
        metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    finally:
        browser.execute_cdp_cmd("Performance.disable", {})
    seconds = next(each["value"] for each in metrics if each["name"] == "TaskDuration")
    record_property("seconds_until_ready", seconds)
    assert seconds < 6  # about 1 where it was written
    assert len(numbers(browser, 60)) == N_ROWS
    browser.execute_script("document.querySelectorAll('table.data th button')[60].click()")
    values = numbers(browser, 60)
    assert values == sorted(values, reverse=True)
    browser.find_element("id", "columns").send_keys("domain 1")
    wait(lambda: browser.find_element("id", "shown").text == "11 of 61 columns")
    browser.execute_script("document.querySelector('table.data').tBodies[0].rows[5].cells[61].click()")
    lines = browser.execute_script("return document.querySelectorAll('#dialog-body tbody tr').length")
    assert lines == N_COLUMNS * N_TRIALS

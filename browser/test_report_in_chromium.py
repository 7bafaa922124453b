"""The page of a report in a real browser: its width on a phone, sorting and filtering, what is folded, what it loads.

`make test-browser` installs and runs this. It needs chromium and chromedriver, and fails without them.
"""

from __future__ import annotations

import base64
import json
import shutil
import time
from pathlib import Path

import pytest
from hand_market import MINUTE, START
from hand_results import WAVES, result
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.registry import Registry
from backtest_kit_mongo.runner import synthetic_market, write_html
from backtest_kit_mongo.runner.report.statistics import result_json

PHONE = 375
HOSTILE = "</script><script>window.hostile=1</script><img src=x onerror=window.hostile=1>"


@pytest.fixture(scope="session")
def browser():
    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    assert program, "no chromium or google-chrome on the PATH: run `make test-browser`, or install Debian's package chromium"
    assert driver, "no chromedriver on the PATH: run `make test-browser`, or install Debian's package chromium-driver"
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture(scope="session")
def registry():
    """A registry with a month of candles in memory."""
    registry = Registry()
    registry.PersistCandleAdapter.use_memory()
    registry.PersistCandleAdapter.write_candles_data(synthetic_market(3, 30 * 1440, START), "BTCUSDT", "1m", "binance")
    yield registry
    registry.close()


PAGES = {
    "trades": lambda: ([result(WAVES)], []),
    "no trades": lambda: ([result([])], []),
    "several": lambda: (
        [result(WAVES), result([1.0, -2.0], symbol=HOSTILE, strategy_name=HOSTILE, complete=False, error=HOSTILE)],
        [HOSTILE],
    ),
    "failed": lambda: ([], ["strategy 'hand' on BTCUSDT: " + "no_candles_are_stored_" * 20]),
    "long texts": lambda: ([result([1.0], strategy_name="n" * 300, parameters={f"NAME_{n}": "v" * 40 for n in range(30)})], []),
}


@pytest.fixture(scope="session")
def page(browser, registry, tmp_path_factory):
    """A function that opens a page of PAGES at a width in pixels."""
    folder = tmp_path_factory.mktemp("pages")

    def show(name, width=1280):
        path = folder / f"{name.replace(' ', '-')}.html"
        if not path.exists():
            runs, failed = PAGES[name]()
            with kit.profile() as report:
                registry.PersistCandleAdapter.read_candles_array("BTCUSDT", "1m", "binance", 5, START)
            write_html(path, runs, failed=failed, registry=registry, profile=report)
        open_file(browser, path, width)
        return browser

    return show


def open_file(browser, path: Path, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get("about:blank")
    browser.get_log("browser")  # of the page before
    browser.get(path.as_uri())


def rows(browser, table="trades"):
    """Return the texts of the rows that a long table shows."""
    script = (
        "return [...document.querySelectorAll(`table.${arguments[0]} tbody tr`)].map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return browser.execute_script(script, table)


def heads(browser, table="trades"):
    return browser.find_elements(By.CSS_SELECTOR, f"table.{table} th")


def status(browser):
    return browser.find_element(By.CSS_SELECTOR, "[role=status]").text


def all_rows(browser):
    """Return the rows of all pages of the table of trades."""
    collected = rows(browser)
    following = browser.find_element(By.XPATH, "//button[text()='next']")
    while following.is_enabled():
        following.click()
        collected += rows(browser)
    return collected


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_needs_no_scrolling_to_the_side(page, name):
    browser = page(name, PHONE)
    for opened in (False, True):
        if opened:
            browser.execute_script("for (const section of document.querySelectorAll('details')) section.open = true")
            time.sleep(1)  # the sections draw their charts
        widths = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert widths == [PHONE, PHONE]
    for box in browser.find_elements(By.CSS_SELECTOR, ".scroll"):
        assert box.rect["x"] + box.rect["width"] <= PHONE


@pytest.mark.parametrize("name", PAGES)
def test_the_page_loads_nothing_and_has_no_errors(page, name):
    browser = page(name)
    browser.execute_script("for (const section of document.querySelectorAll('details')) section.open = true")
    time.sleep(1)
    assert browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)") == []
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.hostile") is None
    assert browser.execute_script("return document.querySelectorAll('.chart script').length") == 0  # all are drawn
    charts = browser.execute_script(
        "return [document.querySelectorAll('.chart').length, document.querySelectorAll('.chart .main-svg').length]"
    )
    assert charts[1] >= charts[0]


def test_all_trades_are_those_of_the_json(page):
    browser, content = page("trades"), json.loads(result_json(PAGES["trades"]()[0]))
    assert status(browser) == f"240 trades, 1 to 100 shown; profit {content['totals']['pnlPercentage']:+,.3f} %"
    shown = all_rows(browser)
    assert [(row[4], row[7], row[8], row[10]) for row in shown] == [
        (trade["position"], trade["closeReason"].replace("_", " "), f"{trade['pnlPercentage']:+,.3f} %", trade["id"])
        for trade in content["trades"]
    ]
    facts = dict(
        browser.execute_script(
            "return [...document.querySelectorAll('.facts div')].map(box => [box.children[0].textContent, box.children[1].textContent])"
        )
    )
    year = content["analysis"]["annualised"]
    assert facts["CAGR"] == f"{year['cagrPercentage']:+,.3f} %"
    assert facts["Sharpe ratio, annual"] == f"{year['sharpeRatio']:,.3f}"
    assert facts["Buy and hold"] == f"{content['analysis']['buyAndHold']['pnlPercentage']:+,.3f} %"


def test_every_column_sorts_both_ways(page):
    browser, (run,) = page("trades"), PAGES["trades"]()[0]
    sums = [sum(trade.pnl_percentage for trade in run.trades[: number + 1]) for number in range(len(run.trades))]
    keys = [
        lambda number, trade: number,
        lambda number, trade: trade.open_timestamp,
        lambda number, trade: trade.close_timestamp,
        lambda number, trade: trade.close_timestamp - trade.open_timestamp,
        lambda number, trade: trade.position,
        lambda number, trade: trade.price_open,
        lambda number, trade: trade.price_close,
        lambda number, trade: trade.close_reason.replace("_", " "),
        lambda number, trade: trade.pnl_percentage,
        lambda number, trade: round(sums[number], 9),
        lambda number, trade: trade.id,
    ]
    assert len(heads(browser)) == len(keys)
    for column, key in enumerate(keys):
        for reverse in (False, True):
            heads(browser)[column].find_element(By.TAG_NAME, "button").click()
            expected = sorted(enumerate(run.trades), key=lambda row: key(*row), reverse=reverse)
            assert [row[10] for row in rows(browser)] == [trade.id for _, trade in expected[:100]] or column == 9
            values = [round(sums[int(row[0].replace(",", "")) - 1], 9) for row in rows(browser)]
            assert column != 9 or values == sorted(values, reverse=reverse)
            orders = [head.get_attribute("aria-sort") for head in heads(browser)]
            assert orders == [None] * column + ["descending" if reverse else "ascending"] + [None] * (len(keys) - column - 1)


def test_the_keyboard_sorts_too(page):
    browser = page("trades")
    button = heads(browser)[8].find_element(By.TAG_NAME, "button")
    browser.find_element(By.CSS_SELECTOR, ".controls input").click()
    while browser.switch_to.active_element != button:
        ActionChains(browser).send_keys(Keys.TAB).perform()
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert heads(browser)[8].get_attribute("aria-sort") == "ascending"
    browser.switch_to.active_element.send_keys(Keys.SPACE)
    assert heads(browser)[8].get_attribute("aria-sort") == "descending"
    assert rows(browser)[0][8] == f"{max(WAVES):+,.3f} %"


def test_filters_by_text_side_and_reason(page):
    browser, (run,) = page("trades"), PAGES["trades"]()[0]

    def shown():
        return {row[10] for row in all_rows(browser)}

    def choose(name, value):
        browser.find_element(By.CSS_SELECTOR, f"select[aria-label='{name}'] option[value='{value}']").click()

    choose("side", "=short")
    short = [trade for trade in run.trades if trade.position == "short"]
    assert shown() == {trade.id for trade in short}
    assert status(browser).startswith(f"{len(short)} of 240 trades")
    assert status(browser).endswith(f"profit {sum(trade.pnl_percentage for trade in short):+,.3f} %")
    choose("closed by", "=stop loss")
    assert shown() == {trade.id for trade in short if trade.close_reason == "stop_loss"}
    browser.find_element(By.CSS_SELECTOR, ".controls input").send_keys("TRADE-1  2023-03")
    assert shown() == {trade.id for trade in short if trade.close_reason == "stop_loss" and trade.id.startswith("trade-1")} - {
        trade.id for trade in run.trades if trade.open_timestamp >= START + 31 * 1440 * MINUTE
    }
    choose("side", "")
    choose("closed by", "")
    box = browser.find_element(By.CSS_SELECTOR, ".controls input")
    box.clear()
    box.send_keys("nothing like this")
    assert (rows(browser), status(browser)) == ([], "0 of 240 trades; profit +0.000 %")


def test_runs_link_to_their_sections_and_names_are_text(page):
    browser = page("several")
    names = [row[0] for row in rows(browser, "runs")]
    assert names == [f"{HOSTILE} on {HOSTILE}", "hand on BTCUSDT"]
    browser.find_element(By.CSS_SELECTOR, "table.runs a").click()
    opened = browser.find_element(By.CSS_SELECTOR, "details[open]")
    assert opened.get_attribute("id") == "run-0"
    assert HOSTILE in opened.text
    assert len(opened.find_elements(By.CSS_SELECTOR, "table.trades tbody tr")) == 2


def test_tables_of_reads_and_writes_are_folded(page):
    browser = page("trades")
    section = browser.find_element(By.ID, "profile")
    assert section.get_attribute("open") is None
    assert section.text == "Reading and writing"
    section.find_element(By.TAG_NAME, "summary").click()
    assert section.get_attribute("open") is not None


def test_the_page_prints_without_its_controls(page):
    browser = page("trades")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert not browser.find_element(By.CSS_SELECTOR, ".controls input").is_displayed()
        assert {box.value_of_css_property("overflow") for box in browser.find_elements(By.CSS_SELECTOR, ".scroll")} == {"visible"}
        assert base64.b64decode(browser.print_page()).startswith(b"%PDF")
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_ten_thousand_trades_are_usable(browser, registry, tmp_path):
    random = [round(((number * 7919) % 1999 - 999) / 500, 3) for number in range(10_000)]
    path = tmp_path / "many.html"
    write_html(path, result(random, days=3_000), registry=registry)
    assert path.stat().st_size < 16_000_000
    open_file(browser, path, 1280)
    assert len(rows(browser)) == 100
    took = browser.execute_script(
        """
        const began = performance.now(), input = document.querySelector(".controls input");
        const heads = document.querySelectorAll("table.trades th button");
        for (const head of heads) { head.click(); head.click(); }
        input.value = "short stop";
        input.dispatchEvent(new Event("input"));
        document.body.offsetHeight;
        return performance.now() - began;
        """
    )
    assert took < 20_000  # ms, for 22 sorts and a filter
    expected = sum(profit <= 0 for number, profit in enumerate(random) if number % 4 > 1)
    assert status(browser).startswith(f"{expected:,} of 10,000 trades, 1 to 100 shown")

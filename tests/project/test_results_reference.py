"""docs/reference/report.md names every field of the JSON of a run."""

import re

import msgspec
import pytest
from hand_results import result
from paths import ROOT

from backtest_kit_mongo.runner import BuyAndHold, Costs, OpenTrade, Totals, Trade, result_json
from backtest_kit_mongo.runner.report.analysis import Analysis, HeldTotals
from backtest_kit_mongo.runner.report.annualised import Annualised
from backtest_kit_mongo.runner.report.breakdowns import Month, SideTotals, SizeClass
from backtest_kit_mongo.runner.report.drawdowns import Drawdown
from backtest_kit_mongo.runner.report.statistics import Statistics

pytestmark = pytest.mark.once

PAGE = (ROOT / "docs" / "reference" / "report.md").read_text()
NAMED = {part for name in re.findall(r"`([\w.]+)`", PAGE) for part in name.split(".")}
PARTS = (Trade, OpenTrade, Totals, Statistics, Analysis, HeldTotals, Annualised, Month, SideTotals, SizeClass, Drawdown, BuyAndHold, Costs)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_every_field_is_named(part):
    assert {field.encode_name for field in msgspec.structs.fields(part)} <= NAMED


def test_every_section_is_named():
    content = msgspec.json.decode(result_json(result([1.0, -1.0])))
    assert content["runs"]
    assert {*content, *content["runs"][0], *content["totals"]} <= NAMED

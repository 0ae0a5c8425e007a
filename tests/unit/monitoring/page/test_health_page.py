"""The page draws what it is given, in pictures without a library, and takes no text for markup."""

import re
import subprocess
import sys

from include.lake.tables import Lake
from include.messages import Decision, Reason
from include.monitoring import decision as decisions
from include.monitoring import history
from include.monitoring.history import Figure
from include.monitoring.page import health, health_page
from include.monitoring.page.health import Health, look
from include.monitoring.page.health_page import Approval
from tests.case import CASE, at
from tests.unit.conftest import OLD_DAY
from tests.unit.health_pages import decide, page, remember


def test_skill_is_drawn_with_promotions_and_decisions_and_drift_with_its_bound(empty: Lake) -> None:
    remember(empty)
    decide(empty)
    html = page(look(at(empty)))
    assert re.findall(r">(version \d+)</text>", html) == ["version 2"]
    assert f"<title>{OLD_DAY}: retrain</title>" in html
    assert re.search(r"champion \d+\.\d%</span>", html)
    assert '<path class="outlined"' in html
    assert re.search(r'<text class="alarm"[^>]*>0\.90</text>', html)


def test_one_day_is_enough(empty: Lake) -> None:
    remember(empty, count=1)
    html = page(look(at(empty)))
    assert html.count("<svg") == 2
    assert html.count('<circle class="point"') == 1


def test_waiting_approvals_lead_to_where_they_are_answered() -> None:
    html = page(Health(problems=["x"]), [Approval("Promote version 3?", None, "/dags/a/b")])
    assert '<a href="/dags/a/b">Promote version 3?</a>' in html
    assert "Waiting for a person" not in page(Health(problems=["x"]), None)


def test_days_far_apart_are_separated() -> None:
    def partition(key: str) -> health.Partition:
        return health.Partition(key, 9, 0, 9, 0, 9, "1", None, "", [], None)

    far = page(Health(partitions=[partition("2013-03-11"), partition("2013-03-01")]))
    near = page(Health(partitions=[partition("2013-03-09"), partition("2013-03-01")]))
    assert "9 days without a partition" in far
    assert "without a partition" not in near


def test_the_last_day_s_drift_is_beside_the_last_column(empty: Lake) -> None:
    remember(empty, count=1)
    found = look(at(empty))
    assert found.last is not None
    few = health_page.drift_picture(CASE, found.history, found.last)
    assert few is not None
    assert few.right < health_page.WIDTH / 2
    remember(empty, count=30)
    many = health_page.drift_picture(CASE, look(at(empty)).history, found.last)
    assert many is not None
    assert many.right == health_page.WIDTH


def test_text_from_lake_and_registry_is_not_markup(empty: Lake) -> None:
    hostile = "<script>alert(1)</script>"
    remember(empty, feature=hostile)
    rules = [Reason(hostile, "watch", hostile, hostile)]
    decisions.keep(at(empty), Decision(OLD_DAY, "watch", rules))
    history.append(at(empty), OLD_DAY, [Figure("decision", "decision", 1)])
    html = page(look(at(empty)), [Approval(hostile, None, "javascript:")])
    assert html.count("<script") == 1


def test_the_api_server_is_spared_the_libraries_of_training() -> None:
    heavy = {"sklearn", "matplotlib", "xgboost", "scipy.stats"}
    script = (
        "import sys; from tests.case import CASE; from include.registry import registry; "
        "from include.monitoring.page import health_page; "
        f"registry.preload(CASE); sys.exit(bool({heavy} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", script], check=True)

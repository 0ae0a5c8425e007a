"""The page in Airflow's own UI, in a real browser."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from include.lake.tables import Lake
from include.messages import ModelVersion
from local.client import Airflow
from local.in_process import batch_inference
from local.seed import seed
from tests.case import CASE
from tests.e2e.browser import PATIENCE, needs_browser, new_page
from tests.e2e.dag_ids import MONITORING

KEY = "2013-01-28"

pytestmark = needs_browser


@pytest.fixture(autouse=True, scope="module")
def decided(airflow: Airflow, lake: Lake, champion: ModelVersion) -> None:
    """A day that was scored and decided about."""
    seed(CASE, KEY, KEY, say=lambda _: None)
    batch_inference(CASE, KEY, champion)
    airflow.unpause(MONITORING)
    run_id = airflow.trigger(MONITORING, {"act": False}, partition_key=KEY)
    assert airflow.wait(MONITORING, run_id) == "success"


@pytest.fixture(params=["light", "dark"])
def browser_page(request: pytest.FixtureRequest) -> Iterator[Page]:
    with new_page(color_scheme=request.param) as page:
        yield page


def test_it_is_found_in_the_navigation_and_shows_champion_and_decision(
    airflow: Airflow, champion: ModelVersion, browser_page: Page
) -> None:
    asked: list[str] = []
    browser_page.on("request", lambda request: asked.append(request.url))
    browser_page.goto(airflow.url)
    browser_page.get_by_role("link", name="Models", exact=True).click()
    page = browser_page.frame_locator("iframe")
    expect(page.get_by_text(f"Version {champion.version}", exact=True)).to_be_visible(
        timeout=PATIENCE
    )
    expect(page.get_by_role("heading", name=f"Decision about {KEY}")).to_be_visible()
    expect(page.get_by_text("retrain", exact=True).first).to_be_visible()
    expect(page.get_by_role("cell", name=KEY)).to_be_visible()
    theme = browser_page.evaluate("document.documentElement.className.includes('dark')")
    assert page.locator("html").get_attribute("data-theme") == ("dark" if theme else "light")
    assert [url for url in asked if f"/model-health/{CASE}" in url], "the page itself was asked"
    assert {url for url in asked if "model-health" in url and not url.startswith(airflow.url)} == (
        set()
    )

    page.get_by_role("link", name=f"Report of {KEY}").click()
    browser_page.wait_for_url(f"{airflow.url}/reports/{CASE}/{KEY}")
    expect(browser_page.get_by_role("heading", name=f"{CASE} · {KEY}")).to_be_visible()


def test_it_fits_a_phone(airflow: Airflow, browser_page: Page) -> None:
    browser_page.set_viewport_size({"width": 390, "height": 844})
    browser_page.goto(f"{airflow.url}/model-health/{CASE}")
    expect(browser_page.get_by_role("heading", name="Champion")).to_be_visible()
    assert browser_page.evaluate("document.documentElement.scrollWidth") <= 390

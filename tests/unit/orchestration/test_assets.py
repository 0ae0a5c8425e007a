"""Assets join the DAGs of one use case, and never those of two."""

from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path

from include.orchestration.assets import Assets, assets_of
from tests.case import CASE


def names(assets: Assets) -> set[str]:
    return {asset.name for asset in astuple(assets)}


def test_each_asset_has_a_name_and_two_use_cases_share_none() -> None:
    ours, theirs = names(assets_of(CASE)), names(assets_of(replace(CASE, name="doctor_visits")))
    assert len(ours) == len(theirs) == len(Assets.__annotations__)
    assert not ours & theirs


def test_an_asset_of_a_use_case_is_the_same_wherever_it_is_named() -> None:
    assert assets_of(CASE) == assets_of(CASE)
    assert assets_of(CASE).validated.name == "flight_delays.validated"


def test_an_asset_of_a_table_is_its_folder(configure: Callable[..., None], tmp_path: Path) -> None:
    assets = assets_of(CASE)
    assert assets.predictions.uri == f"file://{tmp_path}/lake/flight_delays/predictions"
    assert len({asset.uri for asset in astuple(assets)}) == len(Assets.__annotations__)
    configure(lake_root="s3://lake_conn@bucket/lake")
    assert assets_of(CASE).validated.uri == "s3://bucket/lake/flight_delays/validated"


def test_an_asset_is_there_even_if_no_lake_is_set(deployed: None) -> None:
    assert assets_of(CASE).validated.name == assets_of(CASE).validated.uri

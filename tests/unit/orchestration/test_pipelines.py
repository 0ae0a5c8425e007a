"""A DAG refuses parameters that it does not have, and knows which others have open runs."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from include.errors import BadData
from include.orchestration.pipelines import check_conf, open_dags
from tests.case import CASE


def test_a_run_started_with_a_mistyped_key_is_refused() -> None:
    check_conf({"reason": "x"}, {"reason": "", "dry_run": False})
    check_conf(None, {})
    with pytest.raises(BadData, match="'dryrun', but its DAG has only the parameters reason, dry"):
        check_conf({"reason": "x", "dryrun": True}, {"reason": "", "dry_run": False})


def test_the_dags_with_an_open_run_are_found_without_the_tasks_own(tmp_path: Path) -> None:
    for name in ("data_validation", "delivery", "housekeeping"):
        (tmp_path / f"{name}.py").touch()
    unfinished = {CASE.dag_id("delivery"): 2, CASE.dag_id("housekeeping"): 1}

    def count(dag_id: str, states: list[str]) -> int:
        assert states == ["queued", "running"]
        return unfinished.get(dag_id, 0)

    ti = SimpleNamespace(dag_id=CASE.dag_id("housekeeping"), get_dr_count=count)
    assert open_dags(CASE, tmp_path, ti) == [CASE.dag_id("delivery")]

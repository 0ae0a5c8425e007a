"""A DAG refuses parameters that it does not have."""

import pytest

from include.errors import BadData
from include.orchestration.pipelines import check_conf


def test_a_run_started_with_a_mistyped_key_is_refused() -> None:
    check_conf({"reason": "x"}, {"reason": "", "dry_run": False})
    check_conf(None, {})
    with pytest.raises(BadData, match="'dryrun', but its DAG has only the parameters reason, dry"):
        check_conf({"reason": "x", "dryrun": True}, {"reason": "", "dry_run": False})

"""What every DAG here has."""

import pytest

from include.errors import BadData
from include.orchestration.pipelines import check_conf


def test_a_run_started_with_a_mistyped_key_is_refused() -> None:
    check_conf({"reason": "x"}, {"reason": "", "dry_run": False})
    check_conf(None, {})
    with pytest.raises(BadData, match="'dryrun', which its DAG does not know: there are reason"):
        check_conf({"reason": "x", "dryrun": True}, {"reason": "", "dry_run": False})

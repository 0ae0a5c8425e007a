"""What holds for every DAG file, and the shape of each DAG, from a real parse."""

import re
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from include import usecases
from include.usecase import OWN_TASKS, Member, UseCase
from tests.case import CASE
from tests.conftest import FLIGHTS
from tests.dags.parsing import DAGS, parse

REPO = Path(__file__).resolve().parents[2]

HEAVY = ["mlflow", "numpy", "pandas", "pandera", "polars", "pyarrow", "sklearn", "xgboost"]


SECOND = "tests/usecases/doctor_visits"
BOTH = {"ML_USECASES": f"{FLIGHTS},{SECOND}"}


@pytest.fixture(scope="module")
def parsed() -> dict[str, Any]:
    """What a deployment with two use cases has."""
    return parse(DAGS, BOTH)


@pytest.fixture(scope="module")
def all_dags(parsed: dict[str, Any]) -> dict[str, Any]:
    return parsed["dags"]


@pytest.fixture(scope="module", params=[CASE.name, "doctor_visits"])
def case(request: pytest.FixtureRequest) -> UseCase:
    return CASE if request.param == CASE.name else usecases.load(REPO / SECOND)


@pytest.fixture(scope="module")
def dags(all_dags: dict[str, Any], case: UseCase) -> dict[str, Any]:
    """The DAGs of one use case, by pipeline."""
    start = f"{case.name}."
    return {
        dag_id.removeprefix(start): dag
        for dag_id, dag in all_dags.items()
        if dag_id.startswith(start)
    }


@pytest.fixture(scope="module")
def tasks(dags: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{dag_id}.{task_id}": task
        for dag_id, dag in dags.items()
        for task_id, task in dag["tasks"].items()
    }


def test_every_file_parses_and_holds_the_dag_of_each_use_case_it_is_named_after(
    parsed: dict[str, Any],
) -> None:
    assert parsed["errors"] == {}
    files = {dag_id: dag["file"] for dag_id, dag in parsed["dags"].items()}
    pipelines = [file.stem for file in DAGS.glob("*.py") if file.stem != "broken_usecases"]
    assert files == {
        f"{name}.{pipeline}": f"{pipeline}.py"
        for name in (CASE.name, "doctor_visits")
        for pipeline in pipelines
    }


def test_every_dag_is_tagged_with_its_use_case(dags: dict[str, Any], case: UseCase) -> None:
    for dag_id, dag in dags.items():
        assert case.name in dag["tags"], dag_id
        assert len(dag["tags"]) > 1, dag_id


def test_an_event_of_one_use_case_starts_no_dag_of_another(all_dags: dict[str, Any]) -> None:
    for dag_id, dag in all_dags.items():
        name = dag_id.partition(".")[0]
        assert {asset.partition(".")[0] for asset in dag["assets"]} <= {name}, dag_id
    waited_for = {asset for dag in all_dags.values() for asset in dag["waits_for"]}
    assert waited_for == {
        f"{name}.{asset}"
        for name in (CASE.name, "doctor_visits")
        for asset in ("validated", "degraded", "predictions", "ensemble_predictions")
    }


def test_a_broken_use_case_is_one_import_error_and_the_others_stand(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(REPO / SECOND, broken, ignore=shutil.ignore_patterns("__pycache__"))
    (broken / "models.py").unlink()
    found = parse(DAGS, {"ML_USECASES": f"{broken},{FLIGHTS}"})
    assert {dag_id.partition(".")[0] for dag_id in found["dags"]} == {CASE.name}
    assert len(found["dags"]) == 9
    [(file, error)] = found["errors"].items()
    assert file.endswith("broken_usecases.py")
    assert f"The use case in {broken} lacks the file models.py" in error


def test_a_variable_for_a_missing_use_case_is_an_import_error_and_all_dags_stand() -> None:
    found = parse(DAGS, BOTH | {"ML_CHURN__SEED": "8"})
    assert len(found["dags"]) == 18
    [(file, error)] = found["errors"].items()
    assert file.endswith("broken_usecases.py")
    assert "ML_CHURN__SEED is for a use case that does not exist" in error


def test_a_task_needs_the_dags_of_its_own_use_case_only() -> None:
    of_task = {"_AIRFLOW_PARSING_CONTEXT_DAG_ID": "doctor_visits.batch_inference"}
    found = parse(DAGS, BOTH | of_task)
    assert {dag_id.partition(".")[0] for dag_id in found["dags"]} == {"doctor_visits"}


def test_a_task_of_a_removed_use_case_says_so() -> None:
    of_task = {"_AIRFLOW_PARSING_CONTEXT_DAG_ID": "churn.batch_inference"}
    found = parse(DAGS, BOTH | of_task)
    [error] = [error for file, error in found["errors"].items() if "batch_inference" in file]
    assert "There is no use case 'churn'" in error


def test_every_time_of_day_is_the_use_cases_own(tmp_path: Path) -> None:
    own = tmp_path / "doctor_visits"
    shutil.copytree(REPO / SECOND, own, ignore=shutil.ignore_patterns("__pycache__"))
    declared = (own / "__init__.py").read_text()
    times = 'validated_at="10:30", monitored_at="12:05", '
    (own / "__init__.py").write_text(declared.replace("members=[", f"{times}members=["))
    found = parse(DAGS, {"ML_USECASES": f"{own},{FLIGHTS}"})["dags"]
    assert found["doctor_visits.data_validation"]["cron"] == "30 10 * * *"
    assert found["doctor_visits.model_monitoring"]["cron"] == "5 12 * * *"
    assert found["flight_delays.data_validation"]["cron"] == "0 6 * * *"


def test_a_setting_of_one_use_case_changes_no_dag_of_another() -> None:
    found = parse(DAGS, BOTH | {"ML_DOCTOR_VISITS__REQUIRE_APPROVAL": "true"})["dags"]
    wants = {dag_id: dag["defaults"].get("require_approval") for dag_id, dag in found.items()}
    assert wants["doctor_visits.model_retraining"] is True
    assert wants["flight_delays.model_retraining"] is False


def test_file_events_are_two_more_dags_beside_the_schedule() -> None:
    found = parse(DAGS, {"ML_USECASES": "tests/usecases/diamond_prices"})
    assert found["errors"] == {}
    assert set(HEAVY) & set(found["imported"]) == set()
    dags = {name.removeprefix("diamond_prices."): dag for name, dag in found["dags"].items()}
    assert dags["data_validation"]["cron"] == "0 6 * * *"
    watch, validation = dags["file_events"], dags["validation_on_file"]
    assert watch["waits_for"] == ["diamond_prices.files"]
    assert [*watch["tasks"]] == ["find_days"]
    assert validation["timetable"] == "PartitionedAssetTimetable"
    assert validation["waits_for"] == ["diamond_prices.arrived"]
    inputs = {name for name in dags["data_validation"]["tasks"] if not name.startswith("truth.")}
    assert set(validation["tasks"]) == inputs
    for dag in (watch, validation):
        assert dag["callbacks"] == ["run_failed", "run_succeeded"]
        assert all(task["policy"] and task["callback"] for task in dag["tasks"].values())


def test_parsing_imports_nothing_heavy(parsed: dict[str, Any]) -> None:
    assert set(HEAVY) & set(parsed["imported"]) == set()


def test_a_heavy_import_at_the_top_of_a_file_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "heavy.py").write_text("import polars\nfrom airflow.sdk import dag\n")
    assert "polars" in parse(tmp_path)["imported"]


def test_the_library_imports_airflow_at_its_edge_only_and_no_dag() -> None:
    edge = set()
    for file in (REPO / "include").rglob("*.py"):
        text = file.read_text()
        assert not re.search(r"^\s*(?:from|import) dags\b", text, re.MULTILINE), file
        if re.search(r"^(?:from|import) airflow\b", text, re.MULTILINE):
            edge.add(file.parent.name)
    assert edge == {"orchestration"}


def test_only_the_typed_decorator_turns_messages_into_json_and_back() -> None:
    by_hand = re.compile(r"asdict\(|\b(?:as|from)_\w+\(|\bvars\(|[A-Z]\w+\(\*\*|multiple_outputs")
    for file in (REPO / "dags").glob("*.py"):
        for line in file.read_text().splitlines():
            is_for_airflow = re.search(r"\.extra = |\blineage = ", line)  # not for another task
            assert is_for_airflow or not by_hand.search(line), (file, line)


def test_every_dag_says_what_it_does_and_never_catches_up_by_itself(dags: dict[str, Any]) -> None:
    for dag_id, dag in dags.items():
        assert len(dag["doc"] or "") > 80, dag_id
        assert dag["tags"], dag_id
        assert not dag["catchup"], dag_id


def test_every_parameter_has_bounds(dags: dict[str, Any]) -> None:
    bounds = {
        "integer": {"minimum", "maximum"}, "string": {"maxLength"}, "boolean": set(), "null": set()
    }  # fmt: skip
    for dag_id, dag in dags.items():
        for name, schema in dag["params"].items():
            kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            missing = set.union(*(bounds[kind] for kind in kinds)) - schema.keys()
            assert not missing, (dag_id, name, missing)


def test_every_dag_tells_the_metrics_how_its_runs_end(dags: dict[str, Any]) -> None:
    for dag_id, dag in dags.items():
        assert dag["callbacks"] == ["run_failed", "run_succeeded"], dag_id


def test_every_task_has_an_owner_docs_retries_by_kind_and_an_alert(tasks: dict[str, Any]) -> None:
    for task_id, task in tasks.items():
        assert task["owner"] not in ("", "airflow"), task_id
        assert task["doc"], task_id
        assert task["retries"] > 0, task_id
        assert task["policy"], task_id
        assert task["callback"], task_id


def test_no_mapped_task_takes_arguments_that_airflow_would_render_as_templates(
    tasks: dict[str, Any],
) -> None:
    """What `expand` takes from an XCom stays as it is; what `expand_kwargs` takes is rendered."""
    mapped = {name: task["mapped_over"] for name, task in tasks.items() if task["mapped"]}
    assert set(mapped.values()) == {"DictOfListsExpandInput"}, mapped


def shape(dag: dict[str, Any]) -> dict[str, list[str]]:
    """Task → what follows it; a mapped task's name ends with []."""
    names = {name: f"{name}[]" if t["mapped"] else name for name, t in dag["tasks"].items()}
    return {
        names[task_id]: [names[after] for after in task["downstream"]]
        for task_id, task in dag["tasks"].items()
    }


def test_data_validation_passes_inputs_and_truth_through_the_same_gates(
    dags: dict[str, Any],
) -> None:
    dag = dags["data_validation"]
    assert dag["timetable"] == "CronPartitionTimetable"
    gates = {
        f"{group}.{task}": [f"{group}.{after}"] if after else []
        for group in ("inputs", "truth")
        for task, after in [
            ("land", "check_contract"),
            ("check_contract", "check_rows[]"),
            ("check_rows[]", "check_partition"),
            ("check_partition", "publish"),
            ("publish", ""),
        ]
    }
    assert shape(dag) == {**gates, "inputs.publish": ["record_stages"], "record_stages": []}


def test_batch_inference_scores_each_validated_partition_in_chunks(dags: dict[str, Any]) -> None:
    dag = dags["batch_inference"]
    assert dag["timetable"] == "PartitionedAssetTimetable"
    assert shape(dag) == {
        "resolve_champion": ["check_outputs", "plan_chunks", "publish"],
        "preprocess": ["assemble", "check_outputs", "plan_chunks", "publish"],
        "plan_chunks": ["assemble", "score[]"],
        "score[]": ["assemble"],
        "assemble": ["check_outputs", "publish"],
        "check_outputs": ["publish"],
        "publish": ["record_stages"],
        "record_stages": [],
    }


def test_other_models_score_beside_the_champion_if_wanted_and_hold_nothing_back() -> None:
    found = parse(DAGS, {"ML_FLIGHT_DELAYS__EXPERIMENT": "ab"} | BOTH)
    assert found["errors"] == {}
    dag = found["dags"][CASE.dag_id("batch_inference")]
    assert shape(dag) == {
        "resolve_champion": ["check_outputs", "others.resolve", "plan_chunks", "publish"],
        "preprocess": ["assemble", "check_outputs", "plan_chunks", "publish"],
        "plan_chunks": ["assemble", "others.gather", "others.plan", "score[]"],
        "score[]": ["assemble"],
        "others.resolve": ["others.gather", "others.plan"],
        "others.plan": ["others.score[]"],
        "others.score[]": ["others.gather"],
        "others.gather": ["assemble", "publish"],
        "assemble": ["check_outputs", "publish"],
        "check_outputs": ["publish"],
        "publish": ["record_stages"],
        "record_stages": [],
    }
    assert dag["tasks"]["others.gather"]["trigger_rule"] == "all_done"
    for step in ("resolve", "plan", "score"):
        task = dag["tasks"][f"others.{step}"]
        assert task["own_retries"] == 1, "the champion's scores do not wait long for others"
        assert task["retries"] == dag["tasks"]["score"]["retries"], "an outage is no fault"
    assert dag["tasks"]["others.gather"]["own_retries"] is None
    for name, task in dag["tasks"].items():
        assert name == "others.gather" or task["trigger_rule"] != "all_done", name


def test_no_member_can_have_the_name_of_a_task(dags: dict[str, Any], case: UseCase) -> None:
    groups = {member.name for member in case.members}
    tasks = {name for name in dags["ensemble_inference"]["tasks"] if "." not in name}
    assert tasks - groups == set(OWN_TASKS)


def test_ensemble_inference_scores_each_member_apart_and_goes_on_without_those_that_fail(
    dags: dict[str, Any], case: UseCase
) -> None:
    dag = dags["ensemble_inference"]
    assert dag["timetable"] == "PartitionedAssetTimetable"
    names = [member.name for member in case.members]
    for member in case.members:
        for step in ("plan", "score", "check"):
            task = dag["tasks"][f"{member.name}.{step}"]
            assert task["pool"] == case.pool(member), "no member takes the slots of another"
            assert task["retries"] == dag["tasks"]["preprocess"]["retries"], "an outage is no fault"
            assert task["own_retries"] == member.retries
            assert task["timeout"] == 60 * member.minutes
    assert dag["tasks"]["call_roll"]["trigger_rule"] == "all_done"
    groups = {
        f"{name}.{task}": [f"{name}.{after}" for after in followers] + others
        for name in names
        for task, followers, others in [
            ("plan", ["check", "score[]"], []),
            ("score[]", ["check"], []),
            ("check", [], ["call_roll"]),
        ]
    }
    assert shape(dag) == {
        **groups,
        "resolve_champion": [
            "call_roll", *(f"{m.name}.plan" for m in by_name(case) if m.kind == "registry")
        ],
        "preprocess": sorted(
            [
                "call_roll", "check_outputs", "combine", "fall_back", "publish",
                *(f"{name}.{task}" for name in names for task in ("check", "plan")),
            ]
        ),
        "call_roll": ["check_outputs", "choose", "combine", "fall_back", "publish"],
        "choose": ["combine", "fall_back"],
        "combine": ["check_outputs"],
        "fall_back": ["check_outputs"],
        "check_outputs": ["publish"],
        "publish": ["record_stages"],
        "record_stages": [],
    }  # fmt: skip


def by_name(case: UseCase) -> list[Member]:
    return sorted(case.members, key=lambda member: member.name)


def test_every_pool_that_a_task_wants_is_made_when_airflow_starts(
    tasks: dict[str, Any], case: UseCase
) -> None:
    made = {"default_pool", *(case.pool(member) for member in case.members)}
    assert {task["pool"] for task in tasks.values()} == made


def test_a_person_is_asked_about_a_model_of_this_use_case(
    tasks: dict[str, Any], case: UseCase
) -> None:
    subject = tasks["model_retraining.approve"]["subject"]
    assert subject.startswith("Promote version {{ ")
    assert subject.endswith(f" of {case} to champion?")


def test_model_retraining_promotes_only_what_was_judged_and_registered(
    dags: dict[str, Any],
) -> None:
    dag = dags["model_retraining"]
    assert dag["timetable"] == "NullTimetable"
    assert dag["max_active_runs"] == 1, "two at once are impossible"
    assert shape(dag) == {
        "take_snapshot": [
            "evaluate[]",
            "evaluate_champion",
            "find_rival",
            "judge",
            "refit[]",
            "train[]",
        ],
        "find_rival": ["evaluate[]", "evaluate_champion", "train[]"],
        "list_candidates": ["train[]"],
        "train[]": ["evaluate[]"],
        "evaluate[]": ["judge"],
        "evaluate_champion": ["judge"],
        "judge": ["passed", "promote", "register"],
        "passed": ["refit[]"],
        "refit[]": ["register"],
        "register": ["needs_approval", "promote"],
        "needs_approval": ["approve", "promote"],
        "approve": ["promote"],
        "promote": [],
    }


def test_model_monitoring_decides_by_the_history_and_then_acts(dags: dict[str, Any]) -> None:
    dag = dags["model_monitoring"]
    assert dag["timetable"] == "CronPartitionTimetable"
    assert dag["max_active_runs"] == 1, "the history has one writer"
    assert shape(dag) == {
        "observe": ["decide"],
        "decide": ["follow_up", "list_notifiers", "write_report"],
        "write_report": [],
        "follow_up": ["list_notifiers", "request_retraining"],
        "request_retraining": ["note_retraining"],
        "note_retraining": [],
        "list_notifiers": ["notify[]"],
        "notify[]": [],
        "heal_ensemble": [],
    }


def test_the_stages_that_a_run_notes_are_of_its_own_tasks(dags: dict[str, Any]) -> None:
    for name in ("data_validation", "batch_inference", "ensemble_inference"):
        stages = import_module(f"dags.{name}").STAGES
        assert {task for tasks in stages.values() for task in tasks} <= dags[name]["tasks"].keys()
        assert "publish" in str(stages), "what fails last counts too"


def test_model_rollback_finds_both_versions_before_it_changes_anything(
    dags: dict[str, Any],
) -> None:
    dag = dags["model_rollback"]
    assert dag["timetable"] == "NullTimetable"
    assert shape(dag) == {"find_previous": ["roll_back"], "roll_back": []}


def test_housekeeping_is_weekly_and_deletes_nothing_unless_it_is_told_to(
    dags: dict[str, Any],
) -> None:
    dag = dags["housekeeping"]
    assert (dag["timetable"], dag["cron"]) == ("CronTriggerTimetable", "30 3 * * 0")
    assert (dag["max_active_runs"], dag["defaults"]) == (1, {"dry_run": True})
    assert shape(dag) == {"clean": []}


def test_erasure_is_only_started_by_hand_and_counts_unless_it_is_told_to_erase(
    dags: dict[str, Any],
) -> None:
    dag = dags["erasure"]
    assert (dag["timetable"], dag["max_active_runs"]) == ("NullTimetable", 1)
    assert dag["defaults"] == {"file": "NOTSET", "dry_run": True}
    assert shape(dag) == {"erase": []}


def test_each_use_case_says_for_itself_whether_housekeeping_deletes() -> None:
    found = parse(DAGS, BOTH | {"ML_DOCTOR_VISITS__HOUSEKEEPING_DRY_RUN": "false"})["dags"]
    dry = {
        name: found[f"{name}.housekeeping"]["defaults"]["dry_run"]
        for name in (CASE.name, "doctor_visits")
    }
    assert dry == {CASE.name: True, "doctor_visits": False}

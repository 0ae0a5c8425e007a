"""Is the model still worth its predictions? Look at the day, decide, act, and draw a report.

- **observe** joins the truth that has come with its predictions, measures the day's inputs and
  scores against those of the days before and of the training, and counts the stages that failed in
  the past 24 hours. All of it goes into the history.
- **decide** puts every rule of the policy to the history: *healthy*, *watch*, *retrain* or *page*.
- **write_report** draws the day's page.
- **follow_up** does what was decided: **request_retraining** starts `model_retraining` with the
  reason and waits for nothing, unless one is running; **list_notifiers** and **notify** call a
  person, each notifier apart. A fault of the data calls a person and never retrains.
- **note_retraining** keeps that a retraining was asked for, so that none is again for a while.

For a backfill of days long past, say `{"act": false}`: it decides, and does nothing about it.
"""

from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import CronPartitionTimetable, Param, TriggerRule, dag, task

from include.report_link import ReportLink, report_link
from include.settings import settings
from include.task_defaults import TASK_DEFAULTS, check_conf

RETRAINING = "model_retraining"
REQUEST = "monitoring__{key}"
"""Id of the run that a day asks for: the same day never asks for two."""

PARAMS = {
    "act": Param(
        settings().monitoring_acts,
        type="boolean",
        description="Whether a person is called and a retraining is started.",
    )
}


@dag(
    schedule=CronPartitionTimetable(
        "0 8 * * *", timezone="UTC", run_offset=-1, key_format="%Y-%m-%d"
    ),
    catchup=False,
    max_active_runs=1,
    default_args=TASK_DEFAULTS,
    doc_md=__doc__,
    tags=["monitoring"],
    params=PARAMS,
)
def model_monitoring() -> None:
    """Yesterday's rows and scores, and the truth that has come since."""

    @task
    def observe(*, partition_key: str | None = None, dag_run: Any = None) -> int:
        """Add what is found in the day to the history. Returns the figures added."""
        from datetime import UTC, datetime

        from include import lake
        from include.monitoring import daily

        check_conf(dag_run.conf, PARAMS)
        return daily.observe(lake.default_lake(), str(partition_key), datetime.now(UTC))

    @task(multiple_outputs=False)
    def decide(*, partition_key: str | None = None) -> dict[str, Any]:
        """Decide by the history, and keep the decision in it."""
        from dataclasses import asdict

        from include import lake
        from include.monitoring import daily, policy

        decision = daily.decide(lake.default_lake(), str(partition_key))
        table = policy.table(decision)
        print(table)
        return {**asdict(decision), "why": decision.why, "table": table}

    @task
    def write_report(decision: dict[str, Any]) -> str:
        """Draw the day's page. Returns its address: *Details* of the task has a button for it."""
        from include import lake
        from include.monitoring import daily, policy

        found = policy.as_decision(decision)
        daily.write_report(lake.default_lake(), found.key, found)
        return report_link(found.key)

    @task.branch
    def follow_up(decision: dict[str, Any], *, params: Any = None, ti: Any = None) -> str | None:
        """What is to be done now. A retraining that runs or waits is not doubled."""
        if not params["act"]:
            return None
        if decision["action"] == "page":
            return "list_notifiers"
        if decision["action"] != "retrain":
            return None
        if ti.get_dr_count(dag_id=RETRAINING, states=["queued", "running"]):
            print(f"{RETRAINING} runs already or waits: it is not asked for again today")
            return None
        return "request_retraining"

    request_retraining = TriggerDagRunOperator(
        task_id="request_retraining",
        doc_md="Start a retraining, for the reason that was decided by. Waits for nothing.",
        trigger_dag_id=RETRAINING,
        trigger_run_id=REQUEST.format(key="{{ dag_run.partition_key }}"),
        conf={
            "reason": "{{ ti.xcom_pull('decide')['why'] }}",
            "holdout_days": settings().retraining_holdout_days,
        },
        skip_when_already_exists=True,
        wait_for_completion=False,
    )

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def note_retraining(*, partition_key: str | None = None, ti: Any = None) -> bool:
        """Keep that this day has asked for a retraining, if it has."""
        from include import lake
        from include.monitoring import daily

        run_id = REQUEST.format(key=partition_key)
        asked = bool(ti.get_dr_count(dag_id=RETRAINING, run_ids=[run_id]))
        if asked:
            daily.note_retraining(lake.default_lake(), str(partition_key))
        return asked

    @task
    def list_notifiers(decision: dict[str, Any], report: str) -> list[dict[str, Any]]:
        """Log what a person has to see. Returns what each notifier is to be told."""
        from include import alerting

        title = f"{decision['key']}: {decision['why']}"
        told = {"title": title, "body": decision["table"], "link": report}
        return [{"place": place, **told} for place in alerting.page(**told)]

    @task(doc_md="Call a person. If it fails, the decision stands, and the others are told.")
    def notify(place: int, title: str, body: str, link: str) -> None:
        from include import alerting

        alerting.notify(place, title, body, link)

    decision = decide()
    observe() >> decision
    report = write_report(decision)
    report.operator.operator_extra_links = [ReportLink()]  # type: ignore[attr-defined]
    pages = list_notifiers(decision, report)
    follow_up(decision) >> [request_retraining, pages]
    request_retraining >> note_retraining()
    notify.expand_kwargs(pages)


model_monitoring()

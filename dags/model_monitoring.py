"""Is the model still worth its predictions? Look at the day, decide, act, and draw a report.

- **observe** joins the truth that has come with its predictions, measures the day's inputs and
  scores against those of the days before and of the training, and counts the stages that failed in
  the past 24 hours. All of it goes into the history.
- **decide** puts every rule of the policy to the history: *healthy*, *watch*, *retrain* or *page*.
- **write_report** draws the day's page.
- **follow_up** does what was decided: **request_retraining** starts `model_retraining` with the
  reason and waits for nothing, unless one is running or was asked for lately; **list_notifiers**
  and **notify** call a person, each notifier apart, whatever became of the report. A fault of the
  data calls a person and never retrains.
- **note_retraining** keeps that a retraining was asked for, so that none is again for a while.
- **heal_ensemble** has the last days scored again that members of the ensemble missed because they
  were down. A day is only replaced by what more members have made.

If **observe** or **decide** fails, that is told to every notifier as well. For a backfill of days
long past, say `{"act": false}`: it decides, and does nothing about it. Let it run forwards.
"""

from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import CronPartitionTimetable, Param, TriggerRule, dag, task
from airflow.sdk.exceptions import AirflowSkipException

from include.orchestration.alerting import report_and_call, run_failed, run_succeeded
from include.orchestration.assets import DEGRADED
from include.orchestration.report_link import ReportLink, report_link
from include.orchestration.task_defaults import TASK_DEFAULTS, check_conf
from include.settings import settings

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
    on_failure_callback=run_failed,
    on_success_callback=run_succeeded,
    doc_md=__doc__,
    tags=["monitoring"],
    params=PARAMS,
)
def model_monitoring() -> None:
    """Yesterday's rows and scores, and the truth that has come since."""

    @task(on_failure_callback=report_and_call, max_active_tis_per_dag=1)
    def observe(*, partition_key: str | None = None, dag_run: Any = None) -> int:
        """Add what is found in the day to the history. Returns the figures added."""
        from include.lake import lake
        from include.monitoring import daily

        check_conf(dag_run.conf, PARAMS)
        # When the run was due, not when it began: so runs that are a day apart miss nothing.
        return daily.observe(lake.default_lake(), str(partition_key), dag_run.run_after)

    @task(multiple_outputs=False, on_failure_callback=report_and_call, max_active_tis_per_dag=1)
    def decide(*, partition_key: str | None = None) -> dict[str, Any]:
        """Decide by the history, and keep the decision in it."""
        from dataclasses import asdict

        from include.lake import lake
        from include.monitoring import daily, policy

        decision = daily.decide(lake.default_lake(), str(partition_key))
        table = policy.table(decision)
        print(table)
        told = {
            "why": decision.why,
            "retrain_for": decision.retrain_for,
            "train_until": daily.train_until(lake.default_lake(), decision.key),
            "table": table,
        }
        return {**asdict(decision), **told}

    @task
    def write_report(decision: dict[str, Any]) -> str:
        """Draw the day's page. Returns its address: *Details* of the task has a button for it."""
        from include.lake import lake
        from include.monitoring import daily
        from include.monitoring.decision import as_decision

        found = as_decision(decision)
        daily.write_report(lake.default_lake(), found.key, found)
        return report_link(found.key)

    @task.branch
    def follow_up(decision: dict[str, Any], *, params: Any = None, ti: Any = None) -> list[str]:
        """What is to be done now. A retraining that runs, waits or is recent is not doubled."""
        from include.lake import lake
        from include.monitoring import daily

        follows = ["list_notifiers"] if decision["action"] == "page" else []
        if decision["retrain_for"]:
            busy = ti.get_dr_count(dag_id=RETRAINING, states=["queued", "running"])
            if busy or daily.retraining_is_near(lake.default_lake(), decision["key"]):
                print(f"{RETRAINING} runs, waits or was asked for lately: not again today")
            else:
                follows.append("request_retraining")
        return follows if params["act"] else []

    request_retraining = TriggerDagRunOperator(
        task_id="request_retraining",
        doc_md="Start a retraining, for the reason that was decided by. Waits for nothing.",
        trigger_dag_id=RETRAINING,
        trigger_run_id=REQUEST.format(key="{{ dag_run.partition_key }}"),
        conf={
            "reason": "{{ ti.xcom_pull('decide')['retrain_for'] }}",
            "end": "{{ ti.xcom_pull('decide')['train_until'] }}",
        },
        skip_when_already_exists=True,
        wait_for_completion=False,
    )

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def note_retraining(*, partition_key: str | None = None, ti: Any = None) -> bool:
        """Keep that this day has asked for a retraining, if it has."""
        from include.lake import lake
        from include.monitoring import daily

        run_id = REQUEST.format(key=partition_key)
        asked = bool(ti.get_dr_count(dag_id=RETRAINING, run_ids=[run_id]))
        if asked:
            daily.note_retraining(lake.default_lake(), str(partition_key))
        return asked

    @task
    def list_notifiers(decision: dict[str, Any]) -> list[dict[str, Any]]:
        """Log what a person has to see. Returns what each notifier is to be told."""
        from include.orchestration import alerting

        told = {
            "title": f"{decision['key']}: {decision['why']}",
            "body": decision["table"],
            "link": report_link(decision["key"]),
        }
        return [{"place": place, **told} for place in alerting.page(**told)]

    @task(doc_md="Call a person. If it fails, the decision stands, and the others are told.")
    def notify(page: dict[str, Any]) -> None:
        from include.orchestration import alerting

        alerting.notify(**page)

    @task(outlets=[DEGRADED])
    def heal_ensemble(
        *, partition_key: str | None = None, params: Any = None, outlet_events: Any = None
    ) -> list[str]:
        """Have degraded days of the ensemble scored again. Skipped if there are none."""
        from include.lake import lake
        from include.monitoring import healing

        days = healing.days_to_heal(lake.default_lake(), str(partition_key))
        if not days or not params["act"]:
            raise AirflowSkipException(f"Nothing is started; degraded days: {days or 'none'}")
        outlet_events[DEGRADED].add_partitions(days)
        return days

    decision = decide()
    observe() >> decision
    report = write_report(decision)
    report.operator.operator_extra_links = [ReportLink()]  # type: ignore[attr-defined]
    pages = list_notifiers(decision)
    follow_up(decision) >> [request_retraining, pages]
    request_retraining >> note_retraining()
    notify.expand(page=pages)
    heal_ensemble()


model_monitoring()

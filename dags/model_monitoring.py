"""Does the model still perform? Measure the day, decide, act, and draw a report.

- **observe** joins new truth with its predictions, compares the day's inputs and scores with the
  days before and with the training, and counts the stages that failed in the past 24 hours. All of
  this goes into the history.
- **decide** applies every rule of the policy to the history: *healthy*, *watch*, *retrain* or
  *page*.
- **write_report** draws the day's page.
- **follow_up** acts on the decision: **request_retraining** starts `model_retraining` with the
  reason, without waiting for it, unless one is running or was requested recently.
  **list_notifiers** and **notify** page a person, one task per notifier, even if the report failed.
  Faulty data pages a person and never retrains.
- **note_retraining** records the request for a retraining, which starts the cooldown.
- **heal_ensemble** has recent days scored again that members of the ensemble missed because they
  were down. A day is only replaced if more members contributed.

If **observe** or **decide** fails, every notifier is paged as well. For a backfill of old days, set
`{"act": false}` to decide without acting, and run it from the oldest day on.
"""

from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Param, TriggerRule, task
from airflow.sdk.exceptions import AirflowSkipException

from include.messages import Decided, Page
from include.orchestration.alerting import report_and_page
from include.orchestration.assets import assets_of
from include.orchestration.pipelines import check_conf, pipeline, usecases_of_process
from include.orchestration.report_link import ReportLink, report_link
from include.orchestration.schedules import daily
from include.orchestration.tasks import typed
from include.usecase import UseCase

REQUEST = "monitoring__{key}"
"""Id of the run that a day asks for, so that a day never asks for two."""


def params_of(case: UseCase) -> dict[str, Param]:
    """The parameters of a run."""
    return {
        "act": Param(
            case.settings.monitoring_acts,
            type="boolean",
            description="Whether to page a person and start a retraining.",
        )
    }


@pipeline(
    schedule=lambda case: daily(case.monitored_at),
    max_active_runs=1,
    doc_md=__doc__,
    tags=["monitoring"],
    params=params_of,
)
def model_monitoring(case: UseCase) -> None:
    """Yesterday's rows and scores, and new truth."""
    retraining, assets = case.dag_id("model_retraining"), assets_of(case)

    @task(
        on_failure_callback=report_and_page,
        max_active_tis_per_dag=1,
        inlets=[assets.predictions, assets.ensemble_predictions, assets.actuals],
    )
    def observe(*, partition_key: str | None = None, dag_run: Any = None) -> int:
        """Append the day's figures to the history. Returns their number."""
        from include.monitoring import daily

        check_conf(dag_run.conf, params_of(case))
        # When the run was due, not when it began, so that daily runs leave no gaps.
        return daily.observe(case, str(partition_key), dag_run.run_after)

    @task(on_failure_callback=report_and_page, max_active_tis_per_dag=1)
    @typed
    def decide(*, partition_key: str | None = None) -> Decided:
        """Decide by the history, and store the decision in it."""
        from include.monitoring import daily, policy

        decision = daily.decide(case, str(partition_key))
        table = policy.table(decision)
        print(table)
        return Decided(
            decision.key,
            decision.action,
            decision.reasons,
            why=decision.why,
            retrain_for=decision.retrain_for,
            train_until=daily.train_until(case, decision.key),
            table=table,
        )

    @task
    @typed
    def write_report(decided: Decided) -> str:
        """Draw the day's page. Returns its address: *Details* of the task has a button for it."""
        from include.monitoring import daily

        daily.write_report(case, decided.key, decided.decision)
        return report_link(case, decided.key)

    @task.branch
    @typed
    def follow_up(decided: Decided, *, params: Any = None, ti: Any = None) -> list[str]:
        """The tasks to run. No retraining is requested if one is running, queued or recent."""
        from include.monitoring import daily

        follows = ["list_notifiers"] if decided.action == "page" else []
        if decided.retrain_for:
            busy = ti.get_dr_count(dag_id=retraining, states=["queued", "running"])
            if busy or daily.retraining_is_recent(case, decided.key):
                print(f"{retraining} is running, queued or recent: not requested again today")
            else:
                follows.append("request_retraining")
        return follows if params["act"] else []

    request_retraining = TriggerDagRunOperator(
        task_id="request_retraining",
        doc_md="Start a retraining with the decision's reason, without waiting for it.",
        trigger_dag_id=retraining,
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
        """Record that this day requested a retraining, if it did."""
        from include.monitoring import daily

        run_id = REQUEST.format(key=partition_key)
        asked = bool(ti.get_dr_count(dag_id=retraining, run_ids=[run_id]))
        if asked:
            daily.note_retraining(case, str(partition_key))
        return asked

    @task
    @typed
    def list_notifiers(decided: Decided) -> list[Page]:
        """Log the page. Returns the page for each notifier."""
        from include.orchestration import alerting

        what, link = f"{decided.key}: {decided.why}", report_link(case, decided.key)
        return alerting.pages(case, what, decided.table, link)

    @task(doc_md="Page a person. If it fails, the decision stands, and the others are still paged.")
    @typed
    def notify(page: Page) -> None:
        from include.orchestration import alerting

        alerting.notify(case, page)

    @task(outlets=[assets.degraded])
    def heal_ensemble(
        *, partition_key: str | None = None, params: Any = None, outlet_events: Any = None
    ) -> list[str]:
        """Have degraded days of the ensemble scored again. Skipped if there are none."""
        from include.monitoring import healing

        days = healing.days_to_heal(case, str(partition_key))
        if not days or not params["act"]:
            raise AirflowSkipException(f"Nothing is started; degraded days: {days or 'none'}")
        outlet_events[assets.degraded].add_partitions(days)
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


for case in usecases_of_process():
    model_monitoring(case)

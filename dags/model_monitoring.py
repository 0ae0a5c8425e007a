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
from airflow.sdk import Param, TriggerRule, task
from airflow.sdk.exceptions import AirflowSkipException

from include import usecases
from include.messages import Decided, Page
from include.orchestration.alerting import report_and_call
from include.orchestration.assets import assets_of
from include.orchestration.pipelines import check_conf, pipeline
from include.orchestration.report_link import ReportLink, report_link
from include.orchestration.schedules import daily
from include.orchestration.tasks import typed
from include.usecase import UseCase

REQUEST = "monitoring__{key}"
"""Id of the run that a day asks for: the same day never asks for two."""


def params_of(case: UseCase) -> dict[str, Param]:
    """The parameters of a run."""
    return {
        "act": Param(
            case.settings.monitoring_acts,
            type="boolean",
            description="Whether a person is called and a retraining is started.",
        )
    }


@pipeline(
    schedule=lambda _: daily("0 8 * * *"),
    max_active_runs=1,
    doc_md=__doc__,
    tags=["monitoring"],
    params=params_of,
)
def model_monitoring(case: UseCase) -> None:
    """Yesterday's rows and scores, and the truth that has come since."""
    retraining, degraded = case.dag_id("model_retraining"), assets_of(case).degraded

    @task(on_failure_callback=report_and_call, max_active_tis_per_dag=1)
    def observe(*, partition_key: str | None = None, dag_run: Any = None) -> int:
        """Add what is found in the day to the history. Returns the figures added."""
        from include.monitoring import daily

        check_conf(dag_run.conf, params_of(case))
        # When the run was due, not when it began: so runs that are a day apart miss nothing.
        return daily.observe(case, str(partition_key), dag_run.run_after)

    @task(on_failure_callback=report_and_call, max_active_tis_per_dag=1)
    @typed
    def decide(*, partition_key: str | None = None) -> Decided:
        """Decide by the history, and keep the decision in it."""
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
        """What is to be done now. A retraining that runs, waits or is recent is not doubled."""
        from include.monitoring import daily

        follows = ["list_notifiers"] if decided.action == "page" else []
        if decided.retrain_for:
            busy = ti.get_dr_count(dag_id=retraining, states=["queued", "running"])
            if busy or daily.retraining_is_near(case, decided.key):
                print(f"{retraining} runs, waits or was asked for lately: not again today")
            else:
                follows.append("request_retraining")
        return follows if params["act"] else []

    request_retraining = TriggerDagRunOperator(
        task_id="request_retraining",
        doc_md="Start a retraining, for the reason that was decided by. Waits for nothing.",
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
        """Keep that this day has asked for a retraining, if it has."""
        from include.monitoring import daily

        run_id = REQUEST.format(key=partition_key)
        asked = bool(ti.get_dr_count(dag_id=retraining, run_ids=[run_id]))
        if asked:
            daily.note_retraining(case, str(partition_key))
        return asked

    @task
    @typed
    def list_notifiers(decided: Decided) -> list[Page]:
        """Log what a person has to see. Returns what each notifier is to be told."""
        from include.orchestration import alerting

        title, link = f"{decided.key}: {decided.why}", report_link(case, decided.key)
        places = alerting.page(case, title, decided.table, link)
        return [Page(place, title, decided.table, link) for place in places]

    @task(doc_md="Call a person. If it fails, the decision stands, and the others are told.")
    @typed
    def notify(page: Page) -> None:
        from include.orchestration import alerting

        alerting.notify(case, page.place, page.title, page.body, page.link)

    @task(outlets=[degraded])
    def heal_ensemble(
        *, partition_key: str | None = None, params: Any = None, outlet_events: Any = None
    ) -> list[str]:
        """Have degraded days of the ensemble scored again. Skipped if there are none."""
        from include.monitoring import healing

        days = healing.days_to_heal(case, str(partition_key))
        if not days or not params["act"]:
            raise AirflowSkipException(f"Nothing is started; degraded days: {days or 'none'}")
        outlet_events[degraded].add_partitions(days)
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


for case in usecases.enabled():
    model_monitoring(case)

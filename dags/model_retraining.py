"""Labelled history → a challenger that beats the champion fairly → the next champion, or not.

- **take_snapshot** fixes the rows: training days, then the holdout, later than any of them.
- **find_rival** fixes the champion to beat. Days that it was trained on do not count.
- **train** and **evaluate** run once for each candidate of the use case; **evaluate_champion**
  scores the same rows.
- **judge** applies every rule of the gate to every candidate. The run ends here, as a success, if
  all are refused, if it is a dry run, or if it repeats an earlier training: the champion stays.
- **refit** fits the best candidate again on all days, and also the other sound ones, the members of
  the next ensemble. **register** registers them.
- **approve** asks a person, if the run requires it, and shows the verdict. No answer means no.
- **promote** makes it champion in one step, unless another version has become champion meanwhile.

Only one run is active at a time; others are queued.
"""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param, TriggerRule, task

from include.messages import Evaluated, ModelVersion, Rival, Trained, Verdict
from include.orchestration.assets import assets_of
from include.orchestration.pipelines import check_conf, pipeline, usecases_of_process
from include.orchestration.tasks import typed
from include.usecase import UseCase
from include.wording import literal


def params_of(case: UseCase) -> dict[str, Param]:
    """The parameters of a run."""
    return {
        "reason": Param(
            "requested by hand", type="string", minLength=1, maxLength=500, description="Why now."
        ),
        "start": Param(
            None, type=["null", "string"], format="date", maxLength=10,
            description=f"First day to train on. Empty: {case.training_start}.",
        ),
        "end": Param(
            None, type=["null", "string"], format="date", maxLength=10,
            description="Last day of the holdout. Empty: the newest day whose truth is known.",
        ),
        "holdout_days": Param(
            case.settings.holdout_days, type="integer", minimum=5, maximum=3650,
            description="Days at the end of the window that the models are judged on.",
        ),
        "snapshot": Param(
            None, type=["null", "string"], maxLength=200,
            description="Repeat an earlier training: its snapshot's name, from its MLflow run. "
            "It is judged against the baseline, and nothing is registered or promoted.",
        ),
        "require_approval": Param(
            case.settings.require_approval, type="boolean",
            description="Whether a person must approve the promotion.",
        ),
        "dry_run": Param(
            False, type="boolean",
            description="Train and judge only: nothing is registered or promoted.",
        ),
    }  # fmt: skip


@pipeline(
    schedule=None,
    max_active_runs=1,
    doc_md=__doc__,
    tags=["training"],
    params=params_of,
    user_defined_filters={"literal": literal},  # the question is Markdown, the reason is text
)
def model_retraining(case: UseCase) -> None:
    """Snapshot, candidates, gate, refit, approval, promotion."""
    assets = assets_of(case)
    training_time = timedelta(hours=case.settings.training_hours)

    @task(inlets=[assets.validated, assets.actuals])
    def take_snapshot(*, params: Any = None, dag_run: Any = None) -> str:
        """Fix the rows of training and holdout. Returns a reference to them."""
        from include.training import snapshot

        check_conf(dag_run.conf, params_of(case))
        if params["snapshot"]:
            return snapshot.verify(case, params["snapshot"])
        return snapshot.take(case, params["start"], params["end"], params["holdout_days"])

    @task
    @typed
    def find_rival(snapshot: str, *, params: Any = None) -> Rival | None:
        """The champion to beat, fixed for the run; None if there is none."""
        from include.training import evaluation

        if params["snapshot"]:  # the champion may come from this very snapshot
            return None
        return evaluation.find_rival(case, snapshot)

    @task
    def list_candidates() -> list[str]:
        """Names of the models to train."""
        from include.training import training

        return training.candidates(case)

    @task(
        map_index_template="{{ candidate_name }}",
        execution_timeout=training_time,
        doc_md="Fit one candidate on the days before the holdout. Returns its MLflow run.",
    )
    @typed
    def train(snapshot: str, candidate: str, *, params: Any = None) -> Trained:
        from airflow.sdk import get_current_context

        from include.training import training

        get_current_context()["candidate_name"] = candidate
        run_id = training.train(case, snapshot, candidate, params["reason"])
        return Trained(candidate, run_id)

    @task(
        map_index_template="{{ candidate_name }}",
        doc_md="Score the holdout with one candidate. Returns a reference to its evaluation.",
    )
    @typed
    def evaluate(snapshot: str, rival: Rival | None, trained: Trained) -> str:
        from airflow.sdk import get_current_context

        from include.training import evaluation

        get_current_context()["candidate_name"] = trained.candidate
        return evaluation.evaluate_run(case, snapshot, trained.run_id, trained.candidate, rival)

    @task
    @typed
    def evaluate_champion(snapshot: str, rival: Rival | None) -> str | None:
        """Score the same rows with the champion, if there is one. Returns its evaluation."""
        from include.training import evaluation

        return evaluation.evaluate_champion(case, snapshot, rival)

    @task
    @typed
    def judge(snapshot: str, champion: str | None, evaluations: list[str]) -> Verdict:
        """Apply every rule of the gate to every candidate. Returns the verdict."""
        from include.training import gate

        verdict = gate.judge(case, snapshot, champion, evaluations)
        print(verdict.markdown)
        return verdict

    @task.short_circuit
    @typed
    def passed(verdict: Verdict, *, params: Any = None) -> list[Evaluated]:
        """The challenger and its ensemble. The run ends here if there is none."""
        only_looking = params["dry_run"] or params["snapshot"]
        return [] if only_looking or verdict.challenger is None else verdict.members

    @task(
        map_index_template="{{ candidate_name }}",
        execution_timeout=training_time,
        doc_md="Fit one candidate again with the holdout included. Returns its MLflow run.",
    )
    @typed
    def refit(snapshot: str, member: Evaluated) -> Trained:
        from airflow.sdk import get_current_context

        from include.training import training

        get_current_context()["candidate_name"] = member.candidate
        return Trained(member.candidate, training.refit(case, snapshot, member))

    # A member that cannot be refitted is left out; `register` checks that none is stale.
    @task(trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS)
    @typed
    def register(
        verdict: Verdict, runs: list[Trained], *, params: Any = None, run_id: str | None = None
    ) -> ModelVersion:
        """Register the challenger with its lineage and its verdict. Returns the version."""
        from include.training import training

        return training.register(
            case,
            verdict,
            {run.candidate: run.run_id for run in runs},
            params["reason"],
            str(run_id),
            params["require_approval"],
        )

    @task.branch
    def needs_approval(*, params: Any = None) -> str:
        """Whether a person is asked, or the gate alone decides."""
        return "approve" if params["require_approval"] else "promote"

    approve = ApprovalOperator(
        task_id="approve",
        doc_md="A person sees the verdict and decides. No answer in time is a Reject.",
        subject="Promote version {{ ti.xcom_pull('register')['version'] }} "
        f"of {case} to champion?",
        body="{{ params.reason | literal }}\n\n{{ ti.xcom_pull('judge')['markdown'] }}",
        defaults="Reject",
        response_timeout=timedelta(hours=case.settings.approval_hours),
    )

    @task(outlets=[assets.champion], trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
    @typed
    def promote(
        verdict: Verdict,
        version: ModelVersion,
        *,
        params: Any = None,
        ti: Any = None,
        outlet_events: Any = None,
    ) -> str:
        """Make the challenger champion, in one step. Returns the number of its version."""
        from include.registry import promotion

        answer = ti.xcom_pull("approve") or {}
        approver = (answer.get("responded_by_user") or {}).get("name", "")
        promotion.promote(case, version, verdict.champion, params["reason"], approver)
        outlet_events[assets.champion].extra = {**vars(version), "reason": params["reason"]}
        return version.version

    snapshot = take_snapshot()
    rival = find_rival(snapshot)
    runs = train.partial(snapshot=snapshot).expand(candidate=list_candidates())
    evaluations = evaluate.partial(snapshot=snapshot, rival=rival).expand(trained=runs)
    verdict = judge(snapshot, evaluate_champion(snapshot, rival), evaluations)
    rival >> runs
    refitted = refit.partial(snapshot=snapshot).expand(member=passed(verdict))
    version = register(verdict, refitted)
    promotion = promote(verdict, version)
    version >> needs_approval() >> [approve, promotion]
    approve >> promotion


for case in usecases_of_process():
    model_retraining(case)

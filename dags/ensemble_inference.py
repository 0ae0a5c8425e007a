"""Validated partition → predictions by several models, even if some of them are down.

- **preprocess** turns the day's rows into features, **resolve_champion** fixes the version whose
  ensemble this run uses.
- Each **member** is a task group with its own time limit and pool: **plan** fixes its version and
  cuts the day into chunks, **score** runs once for each, **check** refuses implausible answers. A
  red group only means that this member is down. It ends early only for its own failures; an outage
  of the lake or of Airflow is retried as in every DAG.
- **call_roll** finds out which members answered, and **choose** whether they are enough: then
  **combine** averages them. If not, **fall_back** uses the champion alone, or the version before
  it, or else the baseline of each segment.
- **check_outputs** and **publish** as in `batch_inference`. Every row names its contributors and
  its fallback level, and the manifest says why a member is missing.
- **record_stages** records for the monitor how the run ended.

If members missed a day for a temporary reason, `model_monitoring` has it scored again.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import PartitionedAssetTimetable, TriggerRule, task, task_group

from include.messages import Answer, Checked, Chunk, ModelVersion, RollCall, Scored
from include.orchestration.assets import assets_of
from include.orchestration.endings import ending, shares_failure
from include.orchestration.pipelines import pipeline, usecases_of_process
from include.orchestration.retries import RetryByKind
from include.orchestration.tasks import record_stages, skips_if_overtaken, typed
from include.usecase import Member, UseCase

STAGES = {
    "preprocess": ["preprocess"],
    "infer": ["call_roll", "combine", "fall_back"],
    "post-process": ["check_outputs", "publish"],
}


@pipeline(
    schedule=lambda case: PartitionedAssetTimetable(
        assets=assets_of(case).validated | assets_of(case).degraded
    ),
    max_active_runs=4,
    dagrun_timeout=timedelta(hours=6),  # a task whose pool is gone would wait forever
    doc_md=__doc__,
    tags=["inference"],
)
def ensemble_inference(case: UseCase) -> None:
    """Preprocess, score with each member, combine or fall back, post-process."""
    assets = assets_of(case)

    @task
    @shares_failure
    @typed
    def resolve_champion(*, partition_key: str | None = None) -> ModelVersion:
        """The version whose ensemble scores this run, even if another one is promoted meanwhile."""
        from include.registry import registry

        return registry.champion(case, partition_key)

    @task(inlets=[assets.validated])
    @shares_failure
    def preprocess(*, partition_key: str | None = None) -> str:
        """Build the day's features. Returns a reference to them."""
        from include.inference import scoring

        return scoring.preprocess(case, partition_key)

    def ask(member: Member, features: Any, champion: Any) -> Any:
        """The group of one member. Returns its answer."""

        @task_group(
            group_id=member.name,
            tooltip=f"{member.kind}, weight {member.weight:g}",
            default_args={
                "retry_policy": RetryByKind(member.retries),
                "execution_timeout": timedelta(minutes=member.minutes),
                "pool": case.pool(member),
            },
        )
        def group() -> Any:
            @task
            @shares_failure
            @typed
            def plan(features: str, champion: ModelVersion | None) -> list[Chunk]:
                """Fix the member's version, and cut the day into chunks for it."""
                from include.inference import ensemble

                return ensemble.plan(case, features, member, champion)

            @task(
                map_index_template="{{ chunk_label }}",
                doc_md="Score one chunk with the member. Returns the path of its scores.",
            )
            @shares_failure
            @typed
            def score(chunk: Chunk) -> str:
                from airflow.sdk import get_current_context

                from include.inference import ensemble

                get_current_context()["chunk_label"] = chunk.label
                return ensemble.score(case, member, chunk)

            @task
            @shares_failure
            @typed
            def check(features: str, chunks: list[Chunk]) -> Answer:
                """Check that the member's answer is plausible. Returns the answer."""
                from include.inference import ensemble

                return ensemble.check(case, features, member, chunks)

            chunks = plan(features, champion if member.kind == "registry" else None)
            answer = check(features, chunks)
            score.expand(chunk=chunks) >> answer
            return answer

        return group()

    @task(trigger_rule=TriggerRule.ALL_DONE)
    @typed
    def call_roll(
        features: str | None,
        champion: ModelVersion | None,
        answers: dict[str, Answer | None],
        *,
        ti: Any = None,
        run_id: str | None = None,
    ) -> RollCall:
        """Find out which members answered, and why others did not."""
        from include.inference import ensemble

        resolved = ending(ti, run_id, "resolve_champion")
        prepared = ending(ti, run_id, "preprocess")
        if features is None or not prepared.succeeded:
            raise ensemble.no_features(prepared.why)
        given, why, may_return = {}, {}, []
        for member in case.members:
            steps = [f"{member.name}.{step}" for step in ("plan", "score", "check")]
            ended = ending(ti, run_id, *steps)
            given[member.name] = answers[member.name] if ended.succeeded else None
            if member.kind == "registry" and not resolved.succeeded:
                ended = resolved
            why[member.name] = ended.why
            may_return += [member.name] if ended.may_pass else []
        version = champion if resolved.succeeded else None
        return ensemble.call_roll(case, features, version, given, why, may_return)

    @task.branch
    @typed
    def choose(roll: RollCall) -> str:
        """Whether there are enough members, or a fallback is needed."""
        return "fall_back" if roll.lacking else "combine"

    @task
    @typed
    def combine(features: str, roll: RollCall) -> Scored:
        """Average the members that answered. Nothing is published yet."""
        from include.inference import ensemble

        return ensemble.combine_day(case, features, roll)

    @task
    @typed
    def fall_back(features: str, roll: RollCall) -> Scored:
        """Score by the first fallback that works. Nothing is published yet."""
        from include.inference import fallback

        return fallback.fall_back(case, features, roll)

    @task(trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
    @typed
    def check_outputs(
        combined: Scored | None, fallen_back: Scored | None, features: str, roll: RollCall
    ) -> Checked:
        """Check range, nulls and counts before publishing."""
        from include.inference import scoring

        # One of the two tasks is skipped, but may still have a result from before a clear.
        scored = fallen_back if roll.lacking else combined
        assert scored is not None
        found = scoring.check_outputs(case, scored.predictions, features, None)
        return Checked(scored, found)

    @task(outlets=[assets.ensemble_predictions])
    @skips_if_overtaken
    @typed
    def publish(
        checked: Checked,
        features: str,
        roll: RollCall,
        *,
        run_id: str | None = None,
        outlet_events: Any = None,
        triggering_asset_events: Any = None,
    ) -> int:
        """Replace the day's predictions in one step. Returns their number."""
        from include.inference import ensemble

        healing = assets.degraded in triggering_asset_events
        healing = healing and assets.validated not in triggering_asset_events

        facts = ensemble.publish(
            case, checked.scored, checked.check, features, roll, run_id, healing
        )
        outlet_events[assets.ensemble_predictions].extra = facts
        return facts["scored"]

    features, champion = preprocess(), resolve_champion()
    answers = {member.name: ask(member, features, champion) for member in case.members}
    roll = call_roll(features, champion, answers)
    combined, fallen_back = combine(features, roll), fall_back(features, roll)
    choose(roll) >> [combined, fallen_back]
    checked = check_outputs(combined, fallen_back, features, roll)
    publish(checked, features, roll) >> record_stages(case, STAGES, "ensemble_predictions")


for case in usecases_of_process():
    ensemble_inference(case)

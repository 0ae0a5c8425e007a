"""Validated partition → published predictions, for exactly the day that was validated.

- **resolve_champion** fixes the model version that this run uses from start to end.
- **preprocess** turns the day's rows into features and rejects rows that cannot be scored.
- **plan_chunks** cuts the features into chunks; **score** runs once for each, wherever there is a
  free worker. A chunk that was scored before with the same rows and version is not scored again.
- **others**, if the settings request any, is a group of models beside the champion: a challenger
  (A/B test or shadow), and models for rows that lack a whole group of inputs. **resolve** fixes
  their versions, **score** runs once for each chunk in which they have rows, **gather** checks
  which models answered. A failed one does not delay the day: the champion scores every row.
- **assemble** concatenates the chunks, **check_outputs** refuses implausible scores, and
  **publish** replaces the day's predictions in one step. It is skipped if a run with newer rows
  has already published.
- **record_stages** records for the monitor how the run ended.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import PartitionedAssetTimetable, TriggerRule, task, task_group

from include.messages import Branches, Chunk, ModelVersion, OutputCheck
from include.orchestration.assets import assets_of
from include.orchestration.endings import ending, shares_failure
from include.orchestration.pipelines import pipeline, usecases_of_process
from include.orchestration.retries import RetryByKind
from include.orchestration.tasks import TASK_DEFAULTS, record_stages, skips_if_overtaken, typed
from include.usecase import UseCase

STAGES = {
    "preprocess": ["preprocess"],
    "infer": ["resolve_champion", "plan_chunks", "score"],
    "post-process": ["assemble", "check_outputs", "publish"],
}

OTHERS_LIMITS = {"retry_policy": RetryByKind(1), "execution_timeout": timedelta(minutes=15)}
"""Limits of other models' tasks, so that one that hangs does not delay the champion's scores."""


@pipeline(
    schedule=lambda case: PartitionedAssetTimetable(assets=assets_of(case).validated),
    max_active_runs=4,
    doc_md=__doc__,
    tags=["inference"],
)
def batch_inference(case: UseCase) -> None:
    """Preprocess, infer in chunks, post-process."""
    assets = assets_of(case)

    @task
    @typed
    def resolve_champion(*, partition_key: str | None = None) -> ModelVersion:
        """The model version that scores this run, even if another one is promoted meanwhile."""
        from include.registry import registry

        return registry.champion(case, partition_key)

    @task(inlets=[assets.validated])
    def preprocess(*, partition_key: str | None = None) -> str:
        """Build the day's features. Returns a reference to them."""
        from include.inference import scoring

        return scoring.preprocess(case, partition_key)

    @task
    @typed
    def plan_chunks(features: str, model: ModelVersion) -> list[Chunk]:
        """Cut the day into chunks of rows."""
        from include.inference import scoring

        return scoring.plan_chunks(case, features, model, case.settings.reason_codes)

    @task(
        map_index_template="{{ chunk_label }}",
        doc_md="Score one chunk. Returns the path of its scores.",
    )
    @shares_failure
    @typed
    def score(chunk: Chunk) -> str:
        from airflow.sdk import get_current_context

        from include.inference import scoring

        get_current_context()["chunk_label"] = chunk.label
        return scoring.score_chunk(case, chunk)

    @task_group(tooltip="Other models than the champion", default_args=OTHERS_LIMITS)
    def others(chunks: Any, model: Any) -> Any:
        @task
        @shares_failure
        @typed
        def resolve(model: ModelVersion) -> Branches:
            """The versions that score beside the champion, and why some do not."""
            from include.inference import branching

            return branching.resolve(case, model)

        @task
        @shares_failure
        @typed
        def plan(chunks: list[Chunk], branches: Branches) -> list[Chunk]:
            """The chunks in which models beside the champion have rows."""
            from include.inference import branching

            found = branching.plan(case, chunks, branches)
            return [chunk for theirs in found.values() for chunk in theirs]

        @task(
            trigger_rule=TriggerRule.ALL_DONE,
            retry_policy=TASK_DEFAULTS["retry_policy"],  # the champion's scores go through it
            execution_timeout=TASK_DEFAULTS["execution_timeout"],
        )
        @typed
        def gather(
            chunks: list[Chunk] | None,
            branches: Branches | None,
            *,
            ti: Any = None,
            run_id: str | None = None,
        ) -> Branches:
            """Check which models answered, and why others did not."""
            from include.inference import branching

            steps = [f"others.{step}" for step in ("resolve", "plan", "score")]
            told = ending(ti, run_id, *steps).why
            return branching.gather(case, chunks or [], branches, told)

        branches = resolve(model)
        found = gather(chunks, branches)
        score.expand(chunk=plan(chunks, branches)) >> found
        return found

    @task
    @typed
    def assemble(features: str, chunks: list[Chunk], branches: Branches | None) -> str:
        """Concatenate the chunks' scores. Returns a reference to them, not published yet."""
        from include.inference import branching

        return branching.assemble(case, features, chunks, branches)

    @task
    @typed
    def check_outputs(predictions: str, features: str, model: ModelVersion) -> OutputCheck:
        """Check range, nulls, counts and distribution before publishing."""
        from include.inference import scoring

        return scoring.check_outputs(case, predictions, features, model)

    @task(outlets=[assets.predictions])
    @skips_if_overtaken
    @typed
    def publish(
        predictions: str,
        check: OutputCheck,
        features: str,
        model: ModelVersion,
        branches: Branches | None,
        *,
        run_id: str | None = None,
        outlet_events: Any = None,
    ) -> int:
        """Replace the day's predictions in one step. Returns their number."""
        from include.inference import branching

        outlet_events[assets.predictions].extra = {"version": predictions, **vars(check)}
        lineage = {"features": features, "model": vars(model), "dag_run": run_id}
        return branching.publish(case, predictions, check, lineage, branches)

    model = resolve_champion()
    features = preprocess()
    chunks = plan_chunks(features, model)
    branches = others(chunks, model) if case.settings.branches else None
    predictions = assemble(features, chunks, branches)
    score.expand(chunk=chunks) >> predictions
    check = check_outputs(predictions, features, model)
    publish(predictions, check, features, model, branches) >> record_stages(
        case, STAGES, "predictions"
    )


for case in usecases_of_process():
    batch_inference(case)

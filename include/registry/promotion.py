"""Promotion and rollback: only one of several concurrent attempts can succeed.

The champion is the version with the alias `champion`. Moving the alias is the one step that
changes it: before, the old champion scores; after, the new one. Everything else that is written
(tags before it, the alias `previous` after it) is for people.

MLflow has no compare-and-set for an alias. But a parameter of a run can be written only once, by
the first client. So to replace a champion, a process first writes its successor's number as a
parameter of the champion's own run. A process that finds another number there is too late. If a
promotion dies between the two steps, the next promotion finishes it.

One case remains: a process that is paused between these two steps, while others finish its
promotion and another one, moves the alias again when it resumes.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from include import metrics
from include.errors import BadData, MissingData
from include.messages import CHAMPION, ModelVersion
from include.registry import registry
from include.registry.registry import PREVIOUS
from include.usecase import UseCase

if TYPE_CHECKING:
    from mlflow import MlflowClient

REPLACED = "replaced"
"""Tag of a version that became champion: number of the champion before it."""

ROLLED_BACK = "rolled_back_at"
"""Tag of a version that was rolled back: when."""

DONE = ".done"
"""Suffix of the parameter that marks a succession as done."""


def promote(
    case: UseCase,
    model: ModelVersion,
    instead_of: ModelVersion | None,
    reason: str,
    approved_by: str = "",
) -> None:
    """Make a version the champion. If it already is, nothing changes.

    Args:
        model: the version, which must have been judged against `instead_of`.
        instead_of: the champion that it replaces; None if there is none.
        reason: kept with the version.
        approved_by: who approved it, if anyone was asked.

    Raises:
        BadData: another version is champion by now; or the model cannot be loaded.
        DependencyDown: the registry does not answer.
    """
    registry.load(case, model)
    tags = {
        REPLACED: instead_of.version if instead_of else "",
        "promoted_at": _now(),
        "promotion_reason": reason,
        "approved_by": approved_by,
    }
    if _replace(case, instead_of, model, model, tags):
        _tell(case, "promoted", model)


def previous(
    case: UseCase, model: ModelVersion | None, expected_version: str | None = None
) -> ModelVersion:
    """The version that the champion replaced.

    Args:
        model: the champion.
        expected_version: the number that the champion must have, if the run names one.

    Raises:
        BadData: it was the first, there is no champion, or the champion has another number.
    """
    if model is None:
        raise BadData(
            f"There is no champion of {case.name!r} to roll back. Run "
            f"`{case.dag_id('model_retraining')}`, or give a version the alias `champion` in "
            "MLflow."
        )
    if expected_version and model.version != expected_version:
        raise BadData(
            f"Version {expected_version} of {case.name!r} was to be rolled back, but the champion "
            f"is version {model.version} by now: another run was faster. Nothing was changed."
        )
    with registry.connection(case) as client:
        tags = client.get_model_version(case.name, model.version).tags
    if not tags.get(REPLACED):
        raise BadData(
            f"Version {model.version} of {case.name!r} did not replace another version: there is "
            "nothing to roll back to, and it stays champion. Train a new model with "
            f"`{case.dag_id('model_retraining')}`."
        )
    return registry.version(case, tags[REPLACED])


def roll_back(case: UseCase, model: ModelVersion, to: ModelVersion, reason: str) -> None:
    """Make the version that a champion replaced champion again. If it already is, nothing changes.

    A second rollback goes back to the version before that one, not forward again.

    Args:
        model: the champion to roll back.
        to: the version that `previous` returned for it.
        reason: kept with the version that is rolled back.

    Raises:
        BadData: another version is champion by now; or `to` cannot be loaded.
    """
    registry.load(case, to)
    if _replace(case, model, to, model, {ROLLED_BACK: _now(), "rollback_reason": reason}):
        _tell(case, "rolled_back", to)


def _tell(case: UseCase, event: str, champion: ModelVersion) -> None:
    registry.count(case, event)
    metrics.send(case.name, "champion_version", int(champion.version))


def was_rolled_back(case: UseCase, model: ModelVersion) -> bool:
    """Whether a version was champion once and was rolled back."""
    with registry.connection(case) as client:
        return ROLLED_BACK in client.get_model_version(model.name, model.version).tags


def _replace(
    case: UseCase,
    old: ModelVersion | None,
    new: ModelVersion,
    tagged: ModelVersion,
    tags: dict[str, str],
) -> bool:
    """Tag a version and move the alias `champion` from `old` to `new`, unless it is too late.

    Returns:
        Whether this call moved it; False if `new` already was champion.
    """
    with registry.connection(case) as client:
        holder = old.run_id if old else _first_run(case)
        moved = False
        while True:
            params = client.get_run(holder).data.params
            succession = f"succession.{1 + sum(_is_done(key) for key in params)}"
            # Read after the successions, to notice one that finished meanwhile.
            current = registry.find_champion(case)
            if current == new:
                _end_successions(client, holder)
                break
            if current != old:
                raise _too_late(case, old, new, current)
            _end_successions(client, new.run_id)  # from an earlier time as champion
            for name, value in tags.items():
                client.set_model_version_tag(case.name, tagged.version, name, value)
            successor = _write_once(case, client, holder, succession, new.version)
            if successor == new.version:
                client.set_registered_model_alias(case.name, CHAMPION, new.version)
                client.log_param(holder, succession + DONE, True)
                moved = True
                break
            for name in tags:
                client.delete_model_version_tag(case.name, tagged.version, name)
            if _is_unfinished(client, holder, succession) and _can_follow(case, successor):
                client.set_registered_model_alias(case.name, CHAMPION, successor)
            client.log_param(holder, succession + DONE, True)
        _show_previous(case, client, new)
    return moved


def _write_once(case: UseCase, client: "MlflowClient", run_id: str, key: str, value: str) -> str:
    """Write a parameter unless it exists. Returns its value then."""
    from mlflow.exceptions import MlflowException

    try:
        client.log_param(run_id, key, value)
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        written = client.get_run(run_id).data.params.get(key)
        if written is None:  # MLflow raises the same error for a deleted run
            raise BadData(
                f"Run {run_id} of {case.name!r} cannot be changed: {error.message}. The champion "
                "is unchanged. If the run was deleted in MLflow, restore it (`mlflow runs restore "
                f"--run-id {run_id}`), then clear this run's failed tasks."
            ) from error
        return str(written)
    return value


def _is_unfinished(client: "MlflowClient", run_id: str, succession: str) -> bool:
    return succession + DONE not in client.get_run(run_id).data.params


def _can_follow(case: UseCase, successor: str) -> bool:
    """Whether another process can finish a succession that was begun."""
    try:
        registry.load(case, registry.version(case, successor))
    except (BadData, MissingData):  # it has been deleted or damaged since
        return False
    return True


def _show_previous(case: UseCase, client: "MlflowClient", model: ModelVersion) -> None:
    """Give the alias `previous` to the version that a version replaced."""
    before = client.get_model_version(case.name, model.version).tags.get(REPLACED)
    versions = client.search_model_versions(f"name = '{case.name}'")
    if before in [str(found.version) for found in versions]:
        client.set_registered_model_alias(case.name, PREVIOUS, before)
    else:
        client.delete_registered_model_alias(case.name, PREVIOUS)


def _end_successions(client: "MlflowClient", run_id: str) -> None:
    """Mark every succession that began in a run as done."""
    params = client.get_run(run_id).data.params
    for key in params:
        if key.startswith("succession.") and not _is_done(key) and key + DONE not in params:
            client.log_param(run_id, key + DONE, True)


def _is_done(key: str) -> bool:
    return key.startswith("succession.") and key.endswith(DONE)


def _first_run(case: UseCase) -> str:
    """The run of the oldest version: where the first champion's succession is written."""
    with registry.connection(case) as client:
        versions = client.search_model_versions(f"name = '{case.name}'")
    return str(min(versions, key=lambda found: int(found.version)).run_id)


def _too_late(
    case: UseCase, old: ModelVersion | None, new: ModelVersion, current: ModelVersion | None
) -> BadData:
    now = f"version {current.version}" if current else "none"
    judged = f"version {old.version}" if old else f"the {case.target.baseline_name}"
    return BadData(
        f"Version {new.version} of {case.name!r} was to replace {judged}, but the champion is "
        f"{now} by now, and stays so: version {new.version} was not judged against it. If version "
        f"{new.version} is still wanted, run `{case.dag_id('model_retraining')}` or "
        f"`{case.dag_id('model_rollback')}` again."
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

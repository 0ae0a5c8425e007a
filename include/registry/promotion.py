"""Who is champion: promotion and rollback, of which at most one at a time comes about.

The champion is whatever version has the alias `champion`, and moving that alias is the one step
that changes it: before it the old champion scores, after it the new one. Whatever else is written
(tags before it, the alias `previous` after it) is for people.

MLflow has no "move it only if it still is where I saw it". But a parameter of a run can be written
once and never changed, by whichever client is first. So whoever replaces a champion first writes
its successor's number into the champion's own run, and those who find another number there come
too late. A promotion that dies between the two steps is finished by the next one that comes.

What this leaves open: a process that stands still between those two steps, while others finish its
promotion and the next one too, moves the alias once more when it wakes.
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
"""Tag of a version that became champion: number of the one before it."""

ROLLED_BACK = "rolled_back_at"
"""Tag of a version that had to go: when."""

DONE = ".done"
"""End of the parameter that says of a succession that it has come about."""


def promote(
    case: UseCase,
    model: ModelVersion,
    instead_of: ModelVersion | None,
    reason: str,
    approved_by: str = "",
) -> None:
    """Make a version the champion. If it is that already, nothing is changed.

    Args:
        model: the version, which must have been judged against `instead_of`.
        instead_of: the champion that it replaces; None if there is none.
        reason: kept with the version.
        approved_by: who said yes, if somebody was asked.

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
    case: UseCase, model: ModelVersion | None, has_to_go: str | None = None
) -> ModelVersion:
    """The version that the champion has replaced.

    Args:
        model: the champion.
        has_to_go: the number that the champion must have, if that was said.

    Raises:
        BadData: it was the first, there is no champion, or it is another one.
    """
    if model is None:
        raise BadData(
            f"There is no champion of {case.name!r} to roll back. Run "
            f"`{case.dag_id('model_retraining')}`, or give a version the alias `champion` in "
            "MLflow."
        )
    if has_to_go and model.version != has_to_go:
        raise BadData(
            f"Version {has_to_go} of {case.name!r} has to go, but the champion is version "
            f"{model.version} by now: somebody was faster. Nothing was changed."
        )
    with registry.connection(case) as client:
        tags = client.get_model_version(case.name, model.version).tags
    if not tags.get(REPLACED):
        raise BadData(
            f"Version {model.version} of {case.name!r} has replaced no other: there is nothing "
            "to roll back to, and it stays champion. Train a new model with "
            f"`{case.dag_id('model_retraining')}`."
        )
    return registry.version(case, tags[REPLACED])


def roll_back(case: UseCase, model: ModelVersion, to: ModelVersion, reason: str) -> None:
    """Put the version that a champion has replaced back. If it is back already, nothing changes.

    Rolling back once more leads to the version before that one, not forward again.

    Args:
        model: the champion that has to go.
        to: what `previous` gave for it.
        reason: kept with the version that goes.

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
    """Whether a version was champion once and had to go."""
    with registry.connection(case) as client:
        return ROLLED_BACK in client.get_model_version(model.name, model.version).tags


def _replace(
    case: UseCase,
    old: ModelVersion | None,
    new: ModelVersion,
    tagged: ModelVersion,
    tags: dict[str, str],
) -> bool:
    """Tag a version and move the alias `champion` from `old` to `new`, unless one is too late.

    Returns:
        Whether it was moved here: no, if `new` is champion already.
    """
    with registry.connection(case) as client:
        holder = old.run_id if old else _first_run(case)
        moved = False
        while True:
            params = client.get_run(holder).data.params
            succession = f"succession.{1 + sum(_is_done(key) for key in params)}"
            # Looked at after the successions: one that was done meanwhile shows here.
            current = registry.find_champion(case)
            if current == new:
                _end_successions(client, holder)
                break
            if current != old:
                raise _too_late(case, old, new, current)
            _end_successions(client, new.run_id)  # of an earlier time as champion
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
    """Write a parameter unless it is there already. Returns what is there then."""
    from mlflow.exceptions import MlflowException

    try:
        client.log_param(run_id, key, value)
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        written = client.get_run(run_id).data.params.get(key)
        if written is None:  # MLflow says the same of a run that was deleted
            raise BadData(
                f"Run {run_id} of {case.name!r} takes no notes: {error.message}. The champion "
                "is as it was. If the run was deleted in MLflow, restore it (`mlflow runs restore "
                f"--run-id {run_id}`), then clear this run's failed tasks."
            ) from error
        return str(written)
    return value


def _is_unfinished(client: "MlflowClient", run_id: str, succession: str) -> bool:
    return succession + DONE not in client.get_run(run_id).data.params


def _can_follow(case: UseCase, successor: str) -> bool:
    """Whether a succession that somebody has begun can be finished by somebody else."""
    try:
        registry.load(case, registry.version(case, successor))
    except (BadData, MissingData):  # it was deleted or damaged since
        return False
    return True


def _show_previous(case: UseCase, client: "MlflowClient", model: ModelVersion) -> None:
    """Give the alias `previous` to what a version has replaced."""
    before = client.get_model_version(case.name, model.version).tags.get(REPLACED)
    versions = client.search_model_versions(f"name = '{case.name}'")
    if before in [str(found.version) for found in versions]:
        client.set_registered_model_alias(case.name, PREVIOUS, before)
    else:
        client.delete_registered_model_alias(case.name, PREVIOUS)


def _end_successions(client: "MlflowClient", run_id: str) -> None:
    """Write that every succession that began in a run is done."""
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
    judged = f"version {old.version}" if old else "the base rate"
    return BadData(
        f"Version {new.version} of {case.name!r} was to replace {judged}, but the champion is "
        f"{now} by now, and stays so: version {new.version} was not judged against it. If version "
        f"{new.version} is still wanted, run `{case.dag_id('model_retraining')}` or "
        f"`{case.dag_id('model_rollback')}` again."
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

"""What Airflow gives a task, as far as tests need it without a running Airflow."""

import json
from dataclasses import dataclass, field
from typing import Any

from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse


def airflow_says(status: int | None) -> AirflowRuntimeError:
    """What a task gets if Airflow's own API answers with a status, or not at all."""
    detail = {"status_code": status, "message": "no", "detail": {"reason": "unknown"}}
    return AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail=detail))


@dataclass
class StateStore:
    """Airflow's store of a task's state, which all tries of a run share."""

    values: dict[str, Any] = field(default_factory=dict)
    is_away: bool = False

    def get(self, key: str, default: Any = None) -> Any:
        if self.is_away:
            raise airflow_says(None)
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any) -> None:
        self.values[key] = json.dumps(value)

"""The runs of a deployment that a Prefect server has, all of them: it gives at most 200 at a time."""

from collections.abc import Sequence
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort


def runs_in(client: SyncPrefectClient, deployment: UUID, states: Sequence[StateType]) -> list[FlowRun]:
    """The runs of a deployment that are in one of these states, in no order that means anything."""
    found: list[FlowRun] = []
    while True:
        page = client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[*states]))),
            sort=FlowRunSort.ID_DESC,  # which no two share, so that no run falls between two pages
            offset=len(found),
        )
        if not page:
            return found
        found += page

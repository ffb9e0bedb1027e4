"""What a Prefect server does when a night goes wrong: `python -m flows.automations` puts automations.yaml on it.

    export PREFECT_API_URL=http://127.0.0.1:4200/api
    export NIGHT_WEBHOOK=https://...                          # who is told; a POST with {"text": ...}
    python -m flows.automations                               # again after a change of the file or of the address

The address is kept in the server's block `webhook/nights`. Automations of the same name are replaced.
"""

import os
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.events.schemas.automations import AutomationCore
from prefect.types import SecretDict
from pydantic import SecretStr

from flows.schedule import wait_for_server

RULES = Path(__file__).with_name("automations.yaml")
ADDRESS = "NIGHT_WEBHOOK"


def main() -> None:
    """Put the rules on the server of PREFECT_API_URL."""
    address = os.environ.get(ADDRESS)
    if not address:
        sys.exit(f"{ADDRESS} is not set: export the address that a POST with the message goes to")
    wait_for_server()
    for name in put(yaml.safe_load(RULES.read_text(encoding="utf-8")), address):
        print(f"automation: {name}")


def put(rules: list[dict[str, Any]], address: str) -> list[str]:
    """Create these automations or replace those of the same names; returns the names."""
    headers = SecretDict({"Content-Type": "application/json"})
    saved = Webhook(url=SecretStr(address), headers=headers).save("nights", overwrite=True)
    block: UUID = saved  # type: ignore[assignment]  # no coroutine: no loop runs here
    with get_client(sync_client=True) as client:
        for rule in rules:
            automation = AutomationCore.model_validate(_with_block(rule, block))
            for known in client.read_automations_by_name(automation.name):
                client.delete_automation(known.id)
            client.create_automation(automation)
    return [rule["name"] for rule in rules]


def _with_block(rule: dict[str, Any], block: UUID) -> dict[str, Any]:
    """A rule in Prefect's own format: `webhook` has become an action that calls the block."""
    rule = dict(rule)
    actions = rule.pop("actions", [])
    if text := rule.pop("webhook", None):
        actions = [*actions, {"type": "call-webhook", "block_document_id": block, "payload": text}]
    return rule | {"actions": actions}


if __name__ == "__main__":
    main()

"""Apply flows/automations.yaml to the Prefect server: `python -m flows.automations --webhook http://127.0.0.1:9000/`.

An automation of the same name is replaced. The deployment must be known to the server: serve it first.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.schemas.automations import AutomationCore

from flows.night import night
from saliency_r1.yaml_loader import load_yaml

FILE = Path(__file__).with_name("automations.yaml")
BLOCK = "nights-on-call"


def read(values: dict[str, str], path: Path = FILE) -> list[AutomationCore]:
    """The automations of the file, with what stands for `$webhook` and `$deployment` put in."""
    return [AutomationCore.model_validate(_filled(entry, values)) for entry in load_yaml(path)]


def _filled(value: Any, values: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(one, values) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, values) for one in value]
    return values.get(value, value) if isinstance(value, str) else value


def apply(client: SyncPrefectClient, automations: list[AutomationCore]) -> None:
    """Put the automations on the server, each in the place of the one with its name."""
    for automation in automations:
        for old in client.read_automations_by_name(automation.name):
            client.delete_automation(old.id)
        client.create_automation(automation)
        print(f"applied: {automation.name}")


def main() -> None:
    """Read the command line and apply."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--webhook", default=os.environ.get("NIGHTS_WEBHOOK"), help="or NIGHTS_WEBHOOK: who is told")
    parser.add_argument("--name", default="nightly", help="name of the deployment")
    options = parser.parse_args()
    if not options.webhook:
        parser.error("name who is to be told: --webhook, or NIGHTS_WEBHOOK in the environment")
    # An address of this machine is as good as any: it is the owner of the server who gives it.
    block = Webhook(method="POST", url=options.webhook, allow_private_urls=True)
    document = block.save(BLOCK, overwrite=True)
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(f"{night.name}/{options.name}")
        values = {"$webhook": str(document), "$deployment": f"prefect.deployment.{deployment.id}"}
        apply(client, read(values))


if __name__ == "__main__":
    main()

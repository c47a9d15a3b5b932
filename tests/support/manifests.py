"""The manifests of examples/kubernetes, as the containers of a cluster get them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from support.database import ROOT

FOLDER = ROOT / "examples" / "kubernetes"


def documents() -> list[dict[str, Any]]:
    """Each manifest of each file."""
    return [each for file in sorted(FOLDER.glob("*.yaml")) for each in yaml.safe_load_all(file.read_text("utf-8"))]


@dataclass(frozen=True)
class Pod:
    """The pod of a Job, a CronJob or a Deployment."""

    name: str
    spec: dict[str, Any]

    @property
    def containers(self) -> list[dict[str, Any]]:
        """Those of the start, and the others."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def password(self) -> str:
        """What the file with the password holds."""
        (volume,) = self.spec["volumes"]
        (item,) = volume["secret"]["items"]
        return str(_named("Secret", volume["secret"]["secretName"])["stringData"][item["key"]])

    def environment(self, container: dict[str, Any]) -> dict[str, str]:
        """The variables of a container."""
        variables: dict[str, str] = {}
        for source in container["envFrom"]:
            variables |= _named("ConfigMap", source["configMapRef"]["name"])["data"]
        for variable in container["env"]:
            value = variable.get("value")
            if not value:
                reference = variable["valueFrom"]["secretKeyRef"]
                value = str(_named("Secret", reference["name"])["stringData"][reference["key"]])
            variables[variable["name"]] = value
        return variables


def pods() -> Iterator[Pod]:
    """The pods of all manifests."""
    for each in documents():
        if each["kind"] in ("Job", "CronJob", "Deployment"):
            template = each["spec"].get("jobTemplate", each)["spec"]["template"]
            yield Pod(each["metadata"]["name"], template["spec"])


def _named(kind: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in documents() if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found

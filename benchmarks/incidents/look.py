"""What an operator sees of an incident, as texts: alerts, status, readyz, logs, event, doctor."""

import json
from pathlib import Path
from typing import Any, Final

from tests.support.telemetry.scrapes import get

from dsql_outbox.outbox import Event

from .incidents import Incident
from .prometheus import Prometheus
from .shop import Shop, command

_LINES: Final = 12


def look(shop: Shop, incident: Incident, prometheus: Prometheus, folder: Path) -> None:
    """Write what an operator sees now into files of `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "1-alerts": _alerts(prometheus),
        "2-status": _told(shop, "status"),
        "3-attention": _attention(shop),
        "4-readyz": "".join(map(_readyz, shop.listen[: len(shop.logs)])),
        "5-log": _logs(shop),
        "6-event": _told(shop, "event", str(_affected(shop, incident).id)),
        "7-doctor": _told(shop, "doctor"),
    }
    if incident.disk:
        env = shop.environment("shop_operator") | {"DSQL_OUTBOX_DATABASE": shop.postgres.url}
        probe = command("doctor", "--probe", env=env)
        texts["8-doctor-probe"] = f"$ dsql-outbox doctor --probe\n{probe}"
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)


def _alerts(prometheus: Prometheus) -> str:
    lines: list[str] = []
    for each in sorted(prometheus.alerts(), key=lambda alert: str(alert["activeAt"])):
        if each["state"] == "firing":
            labels = {**each["labels"]}
            lines.append(f"{labels.pop('alertname')} {labels}")
            lines += [f"  {name}: {text}" for name, text in sorted(each["annotations"].items())]
    return "\n".join(lines or ["no alert fires"]) + "\n"


def _told(shop: Shop, *words: str) -> str:
    return f"$ dsql-outbox {' '.join(words)}\n{shop.shows(*words)}"


def _attention(shop: Shop) -> str:
    text = shop.shows("status", "--json")
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:
        return text
    return json.dumps(found["attention"], indent=1) + "\n"


def _readyz(listen: str) -> str:
    try:
        status, text = get(f"http://{listen}/readyz")
    except OSError as error:
        return f"no answer: {error}\n"
    return f"{status}\n{text.decode()}"


def _logs(shop: Shop) -> str:
    logs = [*shop.logs, *([shop.writer_log] if shop.writer_log.exists() else [])]
    return "".join(
        "\n".join([f"--- {log.name}", *log.read_text().splitlines()[-_LINES:], ""]) for log in logs
    )


def _affected(shop: Shop, incident: Incident) -> Event:
    found = [each for each in shop.written if incident.affected.encode() in each.to_json()]
    return found[-1]

"""
The pages of docs/reference that say what a file of services may hold, written from the schema itself.

``python -m unisono.spec.reference FOLDER`` writes them anew; a test fails while they are not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from unisono.spec import compose, schema, sections, written
from unisono.spec.base import Model

_MODELS: tuple[tuple[str, type[Model]], ...] = (
    ("The file", schema.File),
    ("services.NAME", schema.Service),
    ("depends_on.NAME", sections.Dependency),
    ("healthcheck", sections.HealthCheck),
    ("healthcheck.http", sections.HttpProbe),
    ("scale", sections.Scale),
    ("scale.wait", sections.Wait),
    ("routes", written.Route),
    ("ports", sections.Port),
    ("env_file", sections.EnvFile),
    ("ports.tls", written.Tls),
    ("balance", written.Balance),
    ("queue", written.Queue),
    ("retries", written.Retries),
    ("hedge", written.Hedge),
    ("mirror", written.Mirror),
    ("access", sections.Access),
    ("transactions", sections.Transactions),
    ("tls", written.PublicTls),
    ("tls.certificates", written.Certificate),
    ("deploy", sections.Deploy),
    ("deploy.resources", sections.ResourcesSection),
    ("deploy.resources.limits", sections.Limits),
    ("deploy.update_config", sections.UpdateSection),
    ("deploy.update_config.canary", written.Canary),
    ("deploy.update_config.canary.header", written.HeaderMatch),
    ("deploy.update_config.canary.success", written.Success),
    ("deploy.restart_policy", sections.RestartPolicy),
)
_IGNORED: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("", compose.TOP_LEVEL),
    ("services.NAME.", compose.SERVICE),
    ("deploy.", compose.DEPLOY),
    ("deploy.resources.", compose.RESOURCES),
    ("deploy.resources.limits.", compose.LIMITS),
    ("deploy.restart_policy.", compose.RESTART_POLICY),
)
BEGIN, END = "<!-- fields: written by unisono.spec.reference -->", "<!-- end of fields -->"


def fields() -> str:
    """Tables of all keys, in Markdown."""
    return "\n".join(_tables())


def schema_text() -> str:
    """The JSON Schema as a file."""
    return json.dumps(schema.json_schema(), indent=2, ensure_ascii=False) + "\n"


def with_fields(page: str) -> str:
    """``page`` with the tables between its two marks made anew."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{fields()}\n{END}{tail}"


def _tables() -> Iterator[str]:
    for title, model in _MODELS:
        yield f"\n### {title}\n\n{_flowing(model.__doc__)}\n\n| key | what it does |\n|---|---|"
        for name, field in model.model_fields.items():
            yield f"| `{name}` | {_cell(field.description)} |"
    yield "\n### Known from Compose, without effect\n\n| key | why |\n|---|---|"
    for prefix, keys in _IGNORED:
        for name, reason in keys.items():
            yield f"| `{prefix}{name}` | {_cell(reason)} |"


def _flowing(text: str | None) -> str:
    return " ".join((text or "").split())


def _cell(text: str | None) -> str:
    return _flowing(text).replace("|", "\\|")


def main(folder: Path) -> None:
    """Write both pages into ``folder``."""
    page = folder / "file.md"
    page.write_text(with_fields(page.read_text(encoding="utf-8")), encoding="utf-8")
    (folder / "unisono.schema.json").write_text(schema_text(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

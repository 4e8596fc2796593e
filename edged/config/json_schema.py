"""The JSON Schema of the configuration file, for editors: it completes keys and marks wrong values while you type.

`edged check --print-schema` prints it. Patterns are ECMA regular expressions, as JSON Schema demands, and TOML has no
null: an absent key is the way to leave a value open.
"""

from __future__ import annotations

from typing import Any

import msgspec

from edged.config import Config


def json_schema() -> dict[str, Any]:
    """The schema of `edged.toml` as a JSON Schema 2020-12 document."""
    _, definitions = msgspec.json.schema_components([Config], ref_template="#/$defs/{name}")
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "edged configuration",
        "$ref": "#/$defs/Config",
        "$defs": _for_toml(definitions),
    }
    return schema


def _for_toml(node: Any) -> Any:
    """Python's `\\Z` becomes `$` (without the flag `m`, ECMA's `$` matches at the very end only); null is left out."""
    if isinstance(node, list):
        return [_for_toml(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "anyOf" in node:
        choices = _for_toml([choice for choice in node["anyOf"] if choice != {"type": "null"}])
        rest = _for_toml({key: value for key, value in node.items() if key != "anyOf"})
        return {**rest, **(choices[0] if len(choices) == 1 else {"anyOf": choices})}
    found = {key: _for_toml(value) for key, value in node.items() if not (key == "default" and _is_table(value))}
    if "pattern" in found:
        found["pattern"] = found["pattern"].replace(r"\Z", "$")
    if "description" in found:
        found["description"] = " ".join(found["description"].split())
    return found


def _is_table(value: object) -> bool:
    """Defaults of whole tables repeat those of their keys, with nulls."""
    return isinstance(value, dict | list) or value is None

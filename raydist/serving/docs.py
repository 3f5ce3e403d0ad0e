"""The reference at /docs: made from the OpenAPI description, one page without scripts."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["docs_page"]

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
code,pre{font:14px/1.4 ui-monospace,monospace;background:#f3f3f3;border-radius:4px}
code{padding:.1em .3em}
pre{padding:.8em;overflow:auto}table{border-collapse:collapse;width:100%;margin:.5rem 0}
td,th{text-align:left;border-bottom:1px solid #ddd;padding:.3rem .6rem .3rem 0;vertical-align:top}
h2{margin-top:2.5rem}@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}
code,pre{background:#2a2a2a}td,th{border-color:#444}a{color:#8cf}}
"""


def docs_page(openapi: Mapping[str, Any]) -> str:
    """Returns the page of an OpenAPI description."""
    schemas = openapi.get("components", {}).get("schemas", {})
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width,initial-scale=1'>",
        f"<title>{_e(openapi['info']['title'])}: reference</title><style>{_STYLE}</style>",
        f"<h1>{_e(openapi['info']['title'])} {_e(openapi['info']['version'])}</h1>",
        f"<p>{_e(openapi['info'].get('description', ''))}</p>",
        "<p><a href='openapi.json'>openapi.json</a> · <a href='./'>try it</a></p>",
    ]
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            parts.append(_operation(path, method, operation, schemas))
    return "".join(parts)


def _operation(
    path: str, method: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]
) -> str:
    parts = [
        f"<h2>{method.upper()} <code>{_e(path)}</code></h2>",
        f"<p>{_e(operation.get('description', operation.get('summary', '')))}</p>",
    ]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    schema = _resolve(body.get("schema", {}), schemas)
    if schema:
        parts.append("<h3>Request</h3>" + _fields(schema, schemas))
        if "example" in schema:
            data = json.dumps(schema["example"])
            parts.append(
                f"<pre>curl -s http://HOST:PORT{_e(path)} -H 'content-type: application/json' "
                f"-d {_e(repr(data))}</pre>"
            )
    answer = operation.get("responses", {}).get("200", {}).get("content", {})
    schema = _resolve(answer.get("application/json", {}).get("schema", {}), schemas)
    if schema.get("properties"):
        parts.append("<h3>Response</h3>" + _fields(schema, schemas))
    return "".join(parts)


def _fields(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = [
        f"<tr><td><code>{_e(name)}</code></td><td>{_e(_type(field, schemas))}"
        f"{' (required)' if name in required else ''}</td>"
        f"<td>{_e(field.get('description', ''))}</td></tr>"
        for name, field in schema.get("properties", {}).items()
    ]
    return f"<table><tr><th>field<th>type<th>meaning{''.join(rows)}</table>"


def _type(field: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    if "$ref" in field:
        return str(field["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in field:
        kinds = [_type(each, schemas) for each in field["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    if "const" in field:
        return str(field["const"])
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}), schemas)}"
    return str(field.get("type", "any"))


def _resolve(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" in schema:
        found: Mapping[str, Any] = schemas[str(schema["$ref"]).rsplit("/", 1)[-1]]
        return found
    return schema


def _e(text: object) -> str:
    return html.escape(str(text))

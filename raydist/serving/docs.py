"""The reference at /docs: made from the OpenAPI description, one page without scripts."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from typing import Any

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
        _prose(openapi["info"].get("description", "")),
        "<p><a href='openapi.json'>openapi.json</a> · <a href='./'>try it</a></p>",
    ]
    first_path: dict[str, str] = {}
    used: dict[str, None] = {}
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            text = _operation(operation, schemas, used)
            same = first_path.setdefault(text, path)
            if same != path:
                text = f"<p>The same as <code>{_e(same)}</code>.</p>"
            parts.append(f"<h2>{method.upper()} <code>{_e(path)}</code></h2>{text}")
            parts.append(_example(path, operation, schemas) if same == path else "")
    parts.append("<h2>Parts</h2>")
    done: set[str] = set()
    while names := [name for name in used if name not in done]:  # parts name further parts
        for name in names:
            about = schemas[name]
            parts.append(f"<h3 id={_e(name)}>{_e(name)}</h3>{_prose(about.get('description', ''))}")
            parts.append(_fields(about, used))
        done |= set(names)
    return "".join(parts)


def _operation(
    operation: Mapping[str, Any], schemas: Mapping[str, Any], used: dict[str, None]
) -> str:
    parts = [_prose(operation.get("description", operation.get("summary", "")))]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    schema = _resolve(body.get("schema", {}), schemas)
    if schema:
        parts.append("<h3>Request</h3>" + _fields(schema, used))
    responses = operation.get("responses", {})
    answer = responses.get("200", {}).get("content", {}).get("application/json", {})
    schema = _resolve(answer.get("schema", {}), schemas)
    if schema.get("properties"):
        parts.append("<h3>Response</h3>" + _fields(schema, used))
        errors = [
            f"<tr><td>{_e(status)}</td><td>{_e(about['description'])}</td></tr>"
            for status, about in responses.items()
            if status >= "4"
        ]
        parts.append("<h3>Errors</h3><table>" + "".join(errors) + "</table>")
    return "".join(parts)


def _example(path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    example = _resolve(body.get("schema", {}), schemas).get("example")
    if example is None:
        return ""
    data = json.dumps(example)
    return (
        f"<h3>Example</h3><pre>curl -s http://HOST:PORT{_e(path)} "
        f"-H 'content-type: application/json' -d {_e(repr(data))}</pre>"
    )


def _fields(schema: Mapping[str, Any], used: dict[str, None]) -> str:
    required = set(schema.get("required", ()))
    rows = [
        f"<tr><td><code>{_e(name)}</code></td><td>{_type(field, used)}"
        f"{' (required)' if name in required else ''}</td>"
        f"<td>{_code(field.get('description', ''))}</td></tr>"
        for name, field in schema.get("properties", {}).items()
    ]
    return f"<table><tr><th>field<th>type<th>meaning{''.join(rows)}</table>" if rows else ""


def _type(field: Mapping[str, Any], used: dict[str, None]) -> str:
    """Returns a field's type as HTML; the parts that it names are added to `used`."""
    if "$ref" in field:
        name = str(field["$ref"]).rsplit("/", 1)[-1]
        used.setdefault(name)
        return f"<a href='#{_e(name)}'>{_e(name)}</a>"
    if "anyOf" in field:
        kinds = [_type(each, used) for each in field["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in field:
        return " | ".join(_e(value) for value in field["enum"])
    if "const" in field:
        return _e(field["const"])
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}), used)}"
    return _e(field.get("type", "any"))


def _resolve(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" in schema:
        target: Mapping[str, Any] = schemas[str(schema["$ref"]).rsplit("/", 1)[-1]]
        return target
    return schema


def _prose(text: str) -> str:
    paragraphs = (part for part in text.split("\n\n") if part.strip())
    return "".join(f"<p>{_code(part)}</p>" for part in paragraphs)


def _code(text: str) -> str:
    """Returns text as HTML, the parts between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _e(text))


def _e(text: object) -> str:
    return html.escape(str(text))

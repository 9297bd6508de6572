"""Checks a value against the part of JSON Schema that docs/command.schema.json uses. A keyword that isn't known
here is an error, so that the schema can't promise what nobody checks."""

import json
import os
import re

from plaittest import SOURCE

PASSIVE = {"$schema", "$defs", "title", "description"}
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float),
         "null": type(None)}


def has_type(value, name):
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def errors(value, schema, root, where="$"):
    unknown = set(schema) - PASSIVE - {"type", "const", "enum", "pattern", "minimum", "properties", "required",
                                       "additionalProperties", "items", "oneOf", "$ref"}
    if unknown:
        return [f"schema: unknown keyword {sorted(unknown)}"]
    found = []
    if "$ref" in schema:
        found += errors(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, where)
    if "oneOf" in schema:
        kinds = [errors(value, part, root, where) for part in schema["oneOf"]]
        if sum(not kind for kind in kinds) != 1:
            nearest = min(kinds, key=lambda kind: (any(".kind:" in line for line in kind), len(kind)))
            found += [f"{where}: not exactly one of the alternatives"] + nearest
    if "type" in schema:
        wanted = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(has_type(value, name) for name in wanted):
            return found + [f"{where}: {value!r} is no {' or '.join(wanted)}"]
    if "const" in schema and value != schema["const"]:
        found.append(f"{where}: {value!r} is not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{where}: {value!r} is not one of {schema['enum']}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{where}: {value!r} doesn't match {schema['pattern']}")
    if "minimum" in schema and value < schema["minimum"]:
        found.append(f"{where}: {value!r} is below {schema['minimum']}")
    if isinstance(value, dict):
        found += object_errors(value, schema, root, where)
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            found += errors(item, schema["items"], root, f"{where}[{index}]")
    return found


def object_errors(value, schema, root, where):
    found = [f"{where}.{key}: missing" for key in schema.get("required", []) if key not in value]
    properties = schema.get("properties", {})
    for key, item in value.items():
        if key in properties:
            found += errors(item, properties[key], root, f"{where}.{key}")
        elif schema.get("additionalProperties") is False:
            found.append(f"{where}.{key}: not in the schema")
    return found


def check(value):
    """Raises AssertionError unless VALUE is a line that docs/command.schema.json allows."""
    with open(os.path.join(SOURCE, "docs", "command.schema.json")) as file:
        root = json.load(file)
    found = errors(value, root, root)
    if found:
        raise AssertionError("\n".join(found))

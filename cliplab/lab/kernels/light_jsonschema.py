"""jsonschema without its parsers for IRIs: no notebook's schema asks for them, and making them
takes longer than all other imports of papermill together.

Import it before nbformat or papermill. In this process the formats iri and iri-reference are then
not checked; where jsonschema is imported already, nothing changes. See
https://github.com/python-jsonschema/jsonschema/issues/1428.
"""

import sys

_PARSERS = "rfc3987_syntax"

if _PARSERS not in sys.modules:
    sys.modules[_PARSERS] = None  # type: ignore[assignment]  # importing it raises ImportError
    try:
        import jsonschema  # type: ignore[import-untyped] # noqa: F401
    finally:
        del sys.modules[_PARSERS]

"""The machinery around a stage: parameters, plans, keys, execution, workflow, tracking, command line. No method stands here."""

import sys

# Else nbformat, by way of jsonschema, spends a second on grammars of web addresses.
sys.modules.setdefault("rfc3987_syntax", None)

"""Checks resources of KEDA and Prometheus' operator against those projects' own types, as npm packages carry them.

The packages are generated from the Go types that the CRDs are generated from, too. The check itself
(``crdmodels/check.mjs``) runs in Node.js.
"""

import json
from pathlib import Path
from typing import Any, Final

from tests.support.npmpackages import laid_out, run

_CHECK: Final = "check.mjs"


def problems(resources: list[dict[str, Any]]) -> list[str]:
    """What is wrong with these custom resources, a line each. Raises CannotInstall."""
    folder = laid_out(Path(__file__).with_suffix(""), _CHECK)
    return [str(line) for line in json.loads(run(["node", str(folder / _CHECK)], folder, given=json.dumps(resources)))]

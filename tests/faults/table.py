"""All rows, by what is faulty."""

from tests.faults import (
    adapter_rows,
    command_rows,
    data_rows,
    model_rows,
    module_rows,
    result_rows,
    run_rows,
    setting_rows,
)
from tests.faults.fault import Fault

GROUPS: dict[str, list[Fault]] = {
    "data files": data_rows.FAULTS,
    "recipes, sweeps, searches": setting_rows.FAULTS,
    "models, tokenizers, GGUF files": model_rows.FAULTS,
    "files of sentence-transformers": module_rows.FAULTS,
    "adapters": adapter_rows.FAULTS,
    "runs, checkpoints, averages, exports": run_rows.FAULTS,
    "results, ranges": result_rows.FAULTS,
    "command lines": command_rows.FAULTS,
}
FAULTS = [fault for rows in GROUPS.values() for fault in rows]

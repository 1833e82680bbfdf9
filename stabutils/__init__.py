"""Train a classifier again, change nothing but the seed, and see which of its answers change.

    import stabutils as st
    study = st.Study(dataset="assistant", runs=10)
    runs = study.retrain("control")
    st.metrics.churn(runs.labels)

Importing this package never imports torch: measuring the predictions of any system needs none.
"""

from importlib import import_module

from stabutils import metrics, records
from stabutils.data.datasets import Dataset, Split, load_dataset
from stabutils.errors import Incomplete, InputError
from stabutils.metrics import detection, intervals
from stabutils.mitigations import Mitigation
from stabutils.reports.comparison import Comparison, compare
from stabutils.reports.reading import read_predictions
from stabutils.reports.stability import Report, report
from stabutils.study.runs import Runs
from stabutils.study.study import Study

__all__ = [
    "Comparison",
    "Dataset",
    "Incomplete",
    "InputError",
    "Mitigation",
    "Recorder",
    "Report",
    "Runs",
    "Split",
    "Study",
    "compare",
    "detection",
    "figures",
    "intervals",
    "load_dataset",
    "metrics",
    "read_predictions",
    "records",
    "report",
]


def __getattr__(name: str):
    if name == "figures":  # seaborn takes a second to import, and measuring needs none of it
        return import_module("stabutils.figures")
    if name == "Recorder":  # brings torch and transformers
        return import_module("stabutils.reports.recorder").Recorder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

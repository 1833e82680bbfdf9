"""Train a classifier again, change nothing but the seed, and see which of its answers change.

    import stabutils as st
    study = st.Study(dataset="assistant", runs=10)
    runs = study.retrain("control")
    st.metrics.churn(runs.labels)

Importing this package never imports torch: measuring predictions of any system needs none.
"""
from importlib import import_module

from . import detection, intervals, metrics, records
from .comparison import Comparison, compare
from .datasets import Dataset, Split, load_dataset
from .errors import Incomplete, InputError
from .mitigations import Mitigation
from .predictions import read_predictions
from .report import Report, report
from .study import Runs, Study

__all__ = ["Comparison", "Dataset", "Incomplete", "InputError", "Mitigation", "Recorder", "Report", "Runs", "Split",
           "Study", "compare", "detection", "figures", "intervals", "load_dataset", "metrics", "read_predictions",
           "records", "report"]


def __getattr__(name: str):
    if name == "figures":  # seaborn takes a second to import, and who only measures needs none of it
        return import_module(f".{name}", __name__)
    if name == "Recorder":  # brings torch and transformers
        return import_module(".recorder", __name__).Recorder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

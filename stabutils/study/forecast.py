"""What several requests, one after another, would train, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from stabutils.study.dispatch import Dispatch
from stabutils.study.runs import Request, Run, missing_runs
from stabutils.training.hooks import Mitigation


class Forecast:
    """Counts the trainings of requests in their order; a run that two of them share counts once.

    Attributes
    ----------
    trained : the runs that the requests so far would train, by name, teachers before their
        students, and how
    extras : by name, what is kept beside their answers
    stored, published : names of the runs whose answers the requests so far would only read
    """

    def __init__(self) -> None:
        self.trained: dict[str, tuple[Mitigation, Run]] = {}
        self.extras: dict[str, set[str]] = {}
        self.stored: set[str] = set()
        self.published: set[str] = set()

    def count(self, dispatch: Dispatch, mitigation: Mitigation, request: Request) -> dict[str, int]:
        """How many runs a request is for, how many are stored and published, and how many
        trainings the others take, their teachers included, that no earlier request takes.
        """
        answers, keep = dispatch.answers, request.keep
        names = {run.name for run in request.runs}
        stored = {run.name for run in request.runs if answers.has(run, keep)}
        published = names & answers.published(request).keys()
        self.published |= published
        self.stored |= stored - published
        missing = missing_runs(request, stored | published)
        return {
            "runs": len(request.runs),
            "stored": len(stored),
            "published": len(published),
            "to train": self._trainings(dispatch, mitigation, missing, keep),
        }

    def _trainings(
        self, dispatch: Dispatch, mitigation: Mitigation, runs: Sequence[Run], keep: Sequence[str]
    ) -> int:
        """The trainings of runs that have no answers yet, their teachers first."""
        missing = [run for run in runs if not self._has(dispatch, run, keep)]
        teachers = dispatch.teachers(mitigation, missing)
        taught = 0
        if teachers:
            taught = self._trainings(dispatch, Mitigation(), teachers, mitigation.teacher_extras)
        for run in missing:
            before = self.extras.get(run.name) or dispatch.answers.extras(run)
            self.trained[run.name] = mitigation, run
            self.extras[run.name] = {*before, *keep}
        return taught + len(missing)

    def _has(self, dispatch: Dispatch, run: Run, keep: Sequence[str]) -> bool:
        trained = self.extras.get(run.name)
        return dispatch.answers.has(run, keep) or trained is not None and trained >= set(keep)

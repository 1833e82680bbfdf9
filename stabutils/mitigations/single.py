"""What notebook 06 trains beside the mixtures: the most stable single model, and what else can be
done with a linear model than to mix it in.
"""

from __future__ import annotations

from typing import Any

from stabutils.data.linear import ALL
from stabutils.mitigations.anchored import AnchorDistillation, Corrected
from stabutils.mitigations.data_centric import TemporalEnsembling
from stabutils.mitigations.finetuning import L2SP, LPFT
from stabutils.mitigations.frozen import Frozen
from stabutils.mitigations.regularizers import DropoutRate, LongerTraining, RDrop, WeightDecay
from stabutils.training.hooks import Mitigation

MOST_STABLE = "most stable single"
WEIGHED = (MOST_STABLE, "R-Drop")  # also beside the linear model, at weights of their own
QUICK = ("corrected", "distilled")


def catalogue(pretrained: bool) -> dict[str, Mitigation | tuple[Mitigation, ...]]:
    """Methods by name. pretrained: whether the network starts from a checkpoint."""
    reads: dict[str, Any] = {"features": "both", "layer": ALL} if pretrained else {}
    methods: dict[str, Mitigation | tuple[Mitigation, ...]] = {
        MOST_STABLE: (
            RDrop(1.0),
            WeightDecay(40.0),
            TemporalEnsembling(),
            DropoutRate(0.5),
            LongerTraining(1.45),
        ),
        "corrected": Corrected(**reads),
        "distilled": AnchorDistillation(**reads),
    }
    if pretrained:
        methods |= {"R-Drop": RDrop(), "LP-FT": LPFT(), "L2-SP": L2SP()}
        methods |= {f"frozen layers {layers}": Frozen(layers) for layers in (1, 2, 3)}
    return methods

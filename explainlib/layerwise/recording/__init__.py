"""Running the model: which layers are recorded, what a forward and a backward pass record of them, and the fallback."""

from explainlib.layerwise.recording.fallback import per_example_gradients
from explainlib.layerwise.recording.passes import ForwardPass, LayerCall, forward_pass, layer_calls
from explainlib.layerwise.recording.plan import (
    EMBEDDING,
    OUTER_PRODUCT,
    TIED,
    FallbackWarning,
    ParameterPlan,
    Plan,
    flat_slices,
    initial_plan,
)

__all__ = [
    "EMBEDDING",
    "OUTER_PRODUCT",
    "TIED",
    "FallbackWarning",
    "ForwardPass",
    "LayerCall",
    "ParameterPlan",
    "Plan",
    "flat_slices",
    "forward_pass",
    "initial_plan",
    "layer_calls",
    "per_example_gradients",
]

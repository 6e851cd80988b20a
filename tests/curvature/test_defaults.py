"""What the functions of curvature take where nothing is passed."""

import explainlib as xl
from tests.defaults import defaults_of

DEFAULTS = {
    "Ekfac": {"seed": 0},
    "Ekfac.inverse_product": {"damping": 0.0},
    "spectral_density": {"steps": 80, "probes": 4, "seed": 0},
}


def test_defaults_are_what_results_rely_on():
    assert defaults_of(xl.curvature) == DEFAULTS

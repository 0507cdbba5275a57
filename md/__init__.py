"""Force fields for molecular liquids: labels, training, fast evaluation, molecular dynamics.

Names are imported when they are first used: ``import scikd.md`` alone needs neither torch nor ASE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scikd._lazy import lazy_names

if __name__ != "scikd.md":
    # From the root of a checkout a bare `import md` finds this file under a second name: every
    # class would exist twice, and isinstance between the two would be False.
    message = f"expected the name 'scikd.md', got {__name__!r}: write `import scikd.md`"
    raise ImportError(message, name=__name__)

if TYPE_CHECKING:
    from .alignment import AlignmentOptions, align
    from .bamboo import import_bamboo
    from .calculators import EnsembleCalculator, ForceFieldCalculator
    from .campaign import CampaignOptions, run_campaign
    from .densities import DensityTarget, read_targets
    from .dispersion import D3BJ, D3CSO
    from .distillation import DistillationOptions, distill_ensemble
    from .dynamics import DynamicsOptions, run_dynamics
    from .electrostatics import Electrostatics
    from .equivariant import Equivariant, EquivariantSettings
    from .estimates import Estimate
    from .evaluation import evaluate
    from .frames import AtomicBatch, from_ase, to_ase
    from .get import GET, GETSettings
    from .liquids import LiquidsOptions, sample_liquids
    from .measurements import MeasuredLiquid, read_measurements
    from .model import Architecture, ForceField
    from .properties import PropertiesOptions, compute_properties
    from .readers import read_frames, write_frames
    from .storage import load_force_field, save_force_field
    from .training import TrainingOptions, fit
    from .trajectories import Trajectory, read_trajectory

__all__ = [
    "D3BJ",
    "D3CSO",
    "GET",
    "AlignmentOptions",
    "Architecture",
    "AtomicBatch",
    "CampaignOptions",
    "DensityTarget",
    "DistillationOptions",
    "DynamicsOptions",
    "Electrostatics",
    "EnsembleCalculator",
    "Equivariant",
    "EquivariantSettings",
    "Estimate",
    "ForceField",
    "ForceFieldCalculator",
    "GETSettings",
    "LiquidsOptions",
    "MeasuredLiquid",
    "PropertiesOptions",
    "TrainingOptions",
    "Trajectory",
    "align",
    "compute_properties",
    "distill_ensemble",
    "evaluate",
    "fit",
    "from_ase",
    "import_bamboo",
    "load_force_field",
    "read_frames",
    "read_measurements",
    "read_targets",
    "read_trajectory",
    "run_campaign",
    "run_dynamics",
    "sample_liquids",
    "save_force_field",
    "to_ase",
    "write_frames",
]

_HOMES = {
    "alignment": ("AlignmentOptions", "align"),
    "bamboo": ("import_bamboo",),
    "calculators": ("EnsembleCalculator", "ForceFieldCalculator"),
    "campaign": ("CampaignOptions", "run_campaign"),
    "densities": ("DensityTarget", "read_targets"),
    "dispersion": ("D3BJ", "D3CSO"),
    "distillation": ("DistillationOptions", "distill_ensemble"),
    "dynamics": ("DynamicsOptions", "run_dynamics"),
    "electrostatics": ("Electrostatics",),
    "equivariant": ("Equivariant", "EquivariantSettings"),
    "estimates": ("Estimate",),
    "evaluation": ("evaluate",),
    "frames": ("AtomicBatch", "from_ase", "to_ase"),
    "get": ("GET", "GETSettings"),
    "liquids": ("LiquidsOptions", "sample_liquids"),
    "measurements": ("MeasuredLiquid", "read_measurements"),
    "model": ("Architecture", "ForceField"),
    "properties": ("PropertiesOptions", "compute_properties"),
    "readers": ("read_frames", "write_frames"),
    "storage": ("load_force_field", "save_force_field"),
    "training": ("TrainingOptions", "fit"),
    "trajectories": ("Trajectory", "read_trajectory"),
}
__getattr__, __dir__ = lazy_names(__name__, _HOMES)

"""Forces on molecules as rigid bodies, one molecule at a time."""

import numpy as np


def split_by_hand(atoms, forces):
    """Return the rigid part of the forces, and net force and torque of each molecule.

    Atoms of molecule -1 get NaN. The angular acceleration is the shortest solution of I a = torque.
    """
    ids, masses = atoms.arrays["molecules"], atoms.get_masses()
    rigid = np.full_like(forces, np.nan)
    nets, torques = [], []
    for number in sorted(set(ids) - {-1}):
        members = [i for i in range(len(atoms)) if ids[i] == number]
        total = sum(masses[i] for i in members)
        centre = sum(masses[i] * atoms.positions[i] for i in members) / total
        net = sum(forces[i] for i in members)
        torque, inertia = np.zeros(3), np.zeros((3, 3))
        for i in members:
            r = atoms.positions[i] - centre
            torque += np.cross(r, forces[i])
            inertia += masses[i] * (r @ r * np.eye(3) - np.outer(r, r))
        spin = np.linalg.lstsq(inertia, torque, rcond=1e-9)[0] if len(members) > 1 else np.zeros(3)
        for i in members:
            r = atoms.positions[i] - centre
            rigid[i] = masses[i] * (net / total + np.cross(spin, r))
        nets.append(net)
        torques.append(torque)
    return rigid, np.array(nets), np.array(torques)

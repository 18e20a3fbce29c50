"""Planted faults: mistakes that the agreement suite and the regression check must find, and what plants them.

    python -m tests.faults agreement --backends torch,jax
    python -m tests.faults check rate_five_percent_off

Each patch in `agreement/BACKEND` and `check/BACKEND` is one fault, the kind of mistake that is made when a model is
carried from one framework to another or when a package is upgraded. `git apply` plants it in a copy of the sources,
and the checks run there. A fault that is not found is a hole in the checks.

A patch begins with a sentence that describes the fault. Lines below it may say more:

    mode: xla         the mode whose code has the fault; without it, the backend's default mode is run
    device: gpu       the fault changes nothing on a CPU
    devices: 2        the fault is one of training on so many devices side by side
    verdict: slower   the fault changes no number: the check must find that it takes longer
"""

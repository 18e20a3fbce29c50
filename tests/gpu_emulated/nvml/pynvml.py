# ruff: noqa: N802
"""A stand-in for nvidia-ml-py that shows one H100: `PYTHONPATH=tests/gpu_emulated/nvml nox -s bench-gpu`."""

NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0


def nvmlInit():
    pass


def nvmlShutdown():
    pass


def nvmlDeviceGetCount():
    return 1


def nvmlDeviceGetHandleByIndex(index):
    return index


def nvmlDeviceGetName(handle):
    return "NVIDIA H100 80GB HBM3"


def nvmlSystemGetDriverVersion():
    return "580.65.06"


def __getattr__(name):
    if not name.startswith("nvml"):
        raise AttributeError(name)
    return lambda *_: None

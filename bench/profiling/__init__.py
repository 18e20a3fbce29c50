"""Where time goes: a few training steps under each framework's own profiler, summed up by one rule for all.

runs      one worker a backend, as the runner starts them
worker    builds the model, warms it up, has a few steps traced, reports the summary
*_trace   one file a framework: its profiler switched on, its trace read into `events.Trace`
xplane    what JAX and TensorFlow share: the reading of XSpace traces
events    the parts of a trace; the name of an operation → what kind of work it is
hlo       the same for what XLA compiled
summary   a trace → seconds a step by kind of work, idle time, launches
"""

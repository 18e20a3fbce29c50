"""Data-parallel training in TensorFlow: what several devices train by, on one node or on several."""

from functools import cache

import tensorflow as tf

from backends.choices import choose_replicas
from backends.values import Nodes


def strategy_of(name: str, device: str, replicas: int, nodes: Nodes) -> tf.distribute.Strategy | None:
    """What the devices train by; None for a single one.

    Raises:
        UnavailableError: the nodes have fewer.
    """
    if replicas == 1:
        return None
    if nodes.several:
        strategy = strategy_over_nodes(nodes, replicas // len(nodes.addresses) if device == "gpu" else 0)
        choose_replicas(name, device, replicas, strategy.num_replicas_in_sync)  # of a CPU it takes one a node
        return strategy
    places = [f"/{device.upper()}:{i}" for i in range(replicas)]
    # Collective operations of a CPU fail where another number of devices has been at work in the process.
    reduction = tf.distribute.ReductionToOneDevice() if device == "cpu" else tf.distribute.NcclAllReduce()
    return tf.distribute.MirroredStrategy(places, reduction)


@cache
def strategy_over_nodes(nodes: Nodes, gpus: int) -> tf.distribute.Strategy:
    """What all nodes train by, made once in a process: it starts the server by which they reach each other.

    Args:
        nodes: the machines.
        gpus: how many of each take part; 0 is its CPU.
    """
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(nodes.addresses)}),
        task_type="worker",
        task_id=nodes.rank,
        num_accelerators={"GPU": gpus} if gpus else {},
        rpc_layer="grpc",
    )
    return tf.distribute.MultiWorkerMirroredStrategy(resolver)


def synchronise(device: str, local_replicas: int) -> None:
    """Wait for the devices of this node alone, where TensorFlow knows those of others too."""
    for i in range(local_replicas):
        with tf.device(f"/{device.upper()}:{i}"):
            tf.raw_ops.SyncDevice()

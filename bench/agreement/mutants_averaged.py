"""More faults to plant, as in `mutants`: AdamW and the average of the weights."""

from __future__ import annotations

from bench.agreement.mutants import fault

AVERAGE = "(1 - optimiser.average) * ("

AVERAGED = (
    fault(
        "decay_coupled",
        "AdamW's decay is a part of the gradient, as in Adam with L2 regularisation",
        torch=("torch.optim.AdamW(", "torch.optim.Adam("),
        tensorflow=(
            "    p.assign_sub(row[0] * decay * p)\n    adam(optimiser, p, g,",
            "    adam(optimiser, p, g + decay * p,",
        ),
        jax=("p - row[0] * decay * p, g,", "p, g + decay * p,"),
        numpy=(
            "    theta -= row[0] * decay * theta\n    adam(optimiser, theta, g,",
            "    adam(optimiser, theta, g + decay * theta,",
        ),
    ),
    fault(
        "decay_of_all",
        "AdamW's decay acts on biases and on s too",
        torch=('"weight_decay": 0.0', '"weight_decay": optimiser.decay'),
        tensorflow=("optimiser.decay if len(p.shape) == 2 else 0.0", "optimiser.decay"),
        jax=("optimiser.decay if p.ndim == 2 else 0.0", "optimiser.decay"),
        numpy=("optimiser.decay if theta.ndim == 2 else 0.0", "optimiser.decay"),
    ),
    fault(
        "decay_without_rate",
        "AdamW's decay isn't multiplied by the learning rate of the step, but by the largest one",
        tensorflow=("row[0] * decay * p", "optimiser.learning_rate * decay * p"),
        jax=("row[0] * decay * p", "optimiser.learning_rate * decay * p"),
        numpy=("row[0] * decay * theta", "optimiser.learning_rate * decay * theta"),
    ),
    fault(
        "rate_not_scheduled",
        "AdamW's learning rate is the same in every step",
        torch=("rate.copy_(row[0])", "rate.fill_(optimiser.learning_rate)"),
        tensorflow=("lr = optimiser.learning_rate if rate is None else rate", "lr = optimiser.learning_rate"),
        jax=("lr = optimiser.learning_rate if rate is None else rate", "lr = optimiser.learning_rate"),
        numpy=("lr = optimiser.learning_rate if rate is None else rate", "lr = optimiser.learning_rate"),
    ),
    fault(
        "average_of_step_before",
        "the average takes in the weights before the update",
        torch=(
            "    step.step()\n    torch._foreach_lerp_(average, parameters, 1 - optimiser.average)",
            "    torch._foreach_lerp_(average, parameters, 1 - optimiser.average)\n    step.step()",
        ),
        tensorflow=(
            "    decay = optimiser",
            f"    average.assign_add({AVERAGE}p - average))\n    decay = optimiser",
            f"    average.assign_add({AVERAGE}p - average))\n",
            "",
        ),
        jax=(
            "    decay = optimiser",
            "    before, decay = p, optimiser",
            f"{AVERAGE}p - average)",
            f"{AVERAGE}before - average)",
        ),
        numpy=(
            "    decay = optimiser",
            "    before, decay = theta.copy(), optimiser",
            f"{AVERAGE}theta - average)",
            f"{AVERAGE}before - average)",
        ),
    ),
    fault(
        "average_follows_fast",
        "α and 1 − α of the average change places",
        torch=("parameters, 1 - optimiser.average)", "parameters, optimiser.average)"),
        frameworks=(AVERAGE, "optimiser.average * ("),
        numpy=(AVERAGE, "optimiser.average * ("),
    ),
)

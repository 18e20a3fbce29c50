"""More faults to plant, as in `mutants`: examples and noise, the optimisers, the training loop, resuming."""

from __future__ import annotations

from bench.agreement.mutants import fault

EXAMPLES_AND_NOISE = (
    fault(
        "scale_written_out",
        "pixels are divided by 255, whatever the protocol says",
        frameworks=("* self._pixels.scale", "/ 255"),
        numpy=("* dtype.type(self._pixels.scale)", "/ 255"),
    ),
    fault(
        "noise_sign",
        "noise is taken away instead of added",
        frameworks=("x + self._pixels.noise * u", "x - self._pixels.noise * u"),
        numpy=("x + dtype.type(self._pixels.noise) * u", "x - dtype.type(self._pixels.noise) * u"),
    ),
    fault(
        "noise_by_65535",
        "the words of the noise are divided by the largest one instead of by 2¹⁶",
        frameworks=("* 2.0**-16", "/ 65535"),
        numpy=("* dtype.type(2**-16)", "/ dtype.type(65535)"),
    ),
    fault(
        "noise_without_half",
        "noise lies at the lower end of each of its 2¹⁶ cells instead of in the middle",
        frameworks=(" + 0.5) * 2.0**-16", ") * 2.0**-16"),
        numpy=(" + dtype.type(0.5))", ")"),
    ),
    fault(
        "noise_words_signed",
        "16-bit words are read as signed, so that half of the noise is negative",
        torch=("(noise.to(torch.int32) & 0xFFFF)", "noise"),
    ),
    fault(
        "noise_of_first_step",
        "every step of an epoch has the noise of the first one",
        torch=("noise[i], schedule[i]", "noise[0], schedule[i]"),
        tensorflow=(
            "t[i] for t in inputs)\n",
            "t[i] for t in inputs)\n            noise = noise if noise is None else inputs[1][0]\n",
        ),
        jax=("to_device(inputs.noise)", "to_device(np.repeat(inputs.noise[:1], len(inputs.noise), axis=0))"),
        numpy=("stream.noise[i]", "stream.noise[0]"),
    ),
    fault(
        "order_of_first_step",
        "every step of an epoch sees the examples of the first one",
        torch=("self._step(order[i]", "self._step(order[0]"),
        tensorflow=("self._rows(order)", "self._rows(inputs[0][0])"),
        jax=("to_device(inputs.order)", "to_device(np.repeat(inputs.order[:1], len(inputs.order), axis=0))"),
        numpy=("stream.order[i]", "stream.order[0]"),
    ),
    fault(
        "order_ignored",
        "every step sees the first examples of the set",
        torch=("self._images.index_select(0, order)", "self._images[: len(order)]"),
        tensorflow=("self._rows(order)", "self._rows(tf.range(order.shape[0]))"),
        jax=("images[order]", "images[: len(order)]"),
        numpy=("self._images[stream.order[i]]", "self._images[: len(stream.order[i])]"),
    ),
)

ADAM_M = "optimiser.beta1 * m + (1 - optimiser.beta1) * g"
ADAM_V = "optimiser.beta2 * v + (1 - optimiser.beta2) * g * g"
MEAN_SQUARE = "optimiser.rho * r + (1 - optimiser.rho) * g * g"
SWAPPED_MEAN_SQUARE = "(1 - optimiser.rho) * r + optimiser.rho * g * g"

OPTIMISERS = (
    fault(
        "betas_swapped",
        "Adam's β₁ and β₂ change places",
        torch=("(optimiser.beta1, optimiser.beta2)", "(optimiser.beta2, optimiser.beta1)"),
        tensorflow=(
            "tf.constant(optimiser.beta1",
            "tf.constant(optimiser.beta2",
            "beta2=tf.constant(optimiser.beta2",
            "beta2=tf.constant(optimiser.beta1",
        ),
        jax=(ADAM_M, ADAM_M.replace("beta1", "beta2"), ADAM_V, ADAM_V.replace("beta2", "beta1")),
        numpy=(ADAM_M, ADAM_M.replace("beta1", "beta2"), ADAM_V, ADAM_V.replace("beta2", "beta1")),
    ),
    fault(
        "epsilon_in_root",
        "Adam's ε is added before the root",
        jax=("jnp.sqrt(v * row[1]) + optimiser.epsilon", "jnp.sqrt(v * row[1] + optimiser.epsilon)"),
        numpy=("np.sqrt(v * row[1]) + optimiser.epsilon", "np.sqrt(v * row[1] + optimiser.epsilon)"),
    ),
    fault(
        "epsilon_before_correction",
        "Adam's ε is added before the bias is corrected, as Keras has it",
        tensorflow=("optimiser.epsilon / root", "optimiser.epsilon"),
        jax=("jnp.sqrt(v * row[1]) + optimiser.epsilon", "(jnp.sqrt(v) + optimiser.epsilon) * jnp.sqrt(row[1])"),
        numpy=("np.sqrt(v * row[1]) + optimiser.epsilon", "(np.sqrt(v) + optimiser.epsilon) * np.sqrt(row[1])"),
    ),
    fault(
        "epsilon_of_framework",
        "Adam's ε is PyTorch's default, 1e-8, instead of the protocol's",
        torch=('            "eps": optimiser.epsilon,\n', ""),
        tensorflow=("optimiser.epsilon / root", "1e-8 / root"),
        jax=(" + optimiser.epsilon)", " + 1e-8)"),
        numpy=(" + optimiser.epsilon)", " + 1e-8)"),
    ),
    fault(
        "bias_not_corrected",
        "Adam's moments are used without correcting their bias towards zero",
        tensorflow=(
            "tf.sqrt(row[1])",
            "tf.ones((), p.dtype)",
            "lr=lr * row[0] / root",
            "lr=lr / root",
        ),
        jax=("(m * row[0])", "m", "v * row[1]", "v"),
        numpy=("(m * row[0])", "m", "v * row[1]", "v"),
    ),
    fault(
        "decoupled_weight_decay",
        "AdamW, with its default weight decay of 0.01",
        torch=("torch.optim.Adam(", "torch.optim.AdamW("),
    ),
    fault(
        "rho_swapped",
        "RMSProp's ρ and 1 − ρ change places",
        torch=(
            "torch._foreach_mul_(mean_squares, optimiser.rho)",
            "torch._foreach_mul_(mean_squares, 1 - optimiser.rho)",
            "gradients, gradients, 1 - optimiser.rho)",
            "gradients, gradients, optimiser.rho)",
        ),
        tensorflow=(MEAN_SQUARE, SWAPPED_MEAN_SQUARE),
        jax=(MEAN_SQUARE, SWAPPED_MEAN_SQUARE),
        numpy=(MEAN_SQUARE, SWAPPED_MEAN_SQUARE),
    ),
    fault(
        "floor_added",
        "RMSProp divides by √r + floor instead of max(√r, floor)",
        torch=("torch._foreach_clamp_min_(rms, ", "torch._foreach_add_(rms, "),
        tensorflow=("tf.maximum(tf.sqrt(r), optimiser.floor)", "(tf.sqrt(r) + optimiser.floor)"),
        jax=("jnp.maximum(jnp.sqrt(r), optimiser.floor)", "(jnp.sqrt(r) + optimiser.floor)"),
        numpy=("np.maximum(np.sqrt(r), optimiser.floor)", "(np.sqrt(r) + optimiser.floor)"),
    ),
    fault(
        "floor_in_root",
        "RMSProp divides by √max(r, floor)",
        torch=(
            "torch._foreach_sqrt(mean_squares)\n        torch._foreach_clamp_min_(rms, optimiser.floor)",
            "torch._foreach_sqrt(torch._foreach_clamp_min(mean_squares, optimiser.floor))",
        ),
        tensorflow=("tf.maximum(tf.sqrt(r), optimiser.floor)", "tf.sqrt(tf.maximum(r, optimiser.floor))"),
        jax=("jnp.maximum(jnp.sqrt(r), optimiser.floor)", "jnp.sqrt(jnp.maximum(r, optimiser.floor))"),
        numpy=("np.maximum(np.sqrt(r), optimiser.floor)", "np.sqrt(np.maximum(r, optimiser.floor))"),
    ),
    fault(
        "momentum_ignored",
        "RMSProp without its momentum",
        torch=("torch._foreach_mul_(velocities, row[1])", "torch._foreach_mul_(velocities, 0)"),
        tensorflow=("row[1] * v - row[0]", "-row[0]"),
        jax=("row[1] * v - row[0]", "-row[0]"),
        numpy=("row[1] * velocity - row[0]", "-row[0]"),
    ),
    fault(
        "not_a_number_late",
        "once there is momentum, velocities are multiplied by the root of a negative number",
        torch=("velocities, row[1])", "velocities, torch.sqrt(-row[1]))"),
        tensorflow=("row[1] * v -", "tf.sqrt(-row[1]) * v -"),
        jax=("row[1] * v -", "jnp.sqrt(-row[1]) * v -"),
        numpy=("row[1] * velocity", "np.sqrt(-row[1]) * velocity"),
    ),
    fault(
        "momentum_late",
        "parameters are moved by the velocity of the step before",
        torch=(
            "        torch._foreach_sub_(velocities, updates)\n        torch._foreach_add_(parameters, velocities)",
            "        torch._foreach_sub_(velocities, updates)",
            "torch._foreach_mul_(velocities,",
            "torch._foreach_add_(parameters, velocities)\n        torch._foreach_mul_(velocities,",
        ),
        tensorflow=("    p.assign_add(v)", "", "    v.assign(", "    p.assign_add(v)\n    v.assign("),
        jax=("    v = row[1] * v -", "    p, v = p + v, row[1] * v -", "return p + v, r, v", "return p, r, v"),
        numpy=(
            "    theta += velocity",
            "",
            "    velocity[...] =",
            "    theta += velocity\n    velocity[...] =",
        ),
    ),
    fault(
        "rate_outside_momentum",
        "velocities are sums of g/rms, and the learning rate multiplies the velocity, as PyTorch's optimisers have it",
        torch=(
            "        torch._foreach_mul_(updates, row[0])\n",
            "",
            "torch._foreach_add_(parameters, velocities)",
            "torch._foreach_add_(parameters, torch._foreach_mul(velocities, row[0]))",
        ),
        tensorflow=("- row[0] * g", "- g", "p.assign_add(v)", "p.assign_add(row[0] * v)"),
        jax=("- row[0] * g", "- g", "return p + v, r", "return p + row[0] * v, r"),
        numpy=("- row[0] * g", "- g", "theta += velocity", "theta += row[0] * velocity"),
    ),
    fault(
        "schedule_by_epoch",
        "every step of an epoch has the learning rate (and with Adam, the bias corrections) of the first one",
        torch=("schedule[i]) for i", "schedule[0]) for i"),
        tensorflow=("update(gradients, row)", "update(gradients, inputs[2][0])"),
        jax=("to_device(schedule)", "to_device(np.repeat(schedule[:1], len(schedule), axis=0))"),
        numpy=("gradients, schedule[i])", "gradients, schedule[0])"),
    ),
)

TRAINING = (
    *(
        fault(
            name,
            description,
            torch=(
                "names = list(model.architecture.trainable_shapes)",
                f"names = [n for n in model.architecture.trainable_shapes if not n.endswith('{end}')]",
            ),
            tensorflow=(
                "                    rule(p,",
                f"                    if not name.endswith('{end}'):\n                        rule(p,",
            ),
            jax=("return new_p,", f"return new_p | {{n: a for n, a in p.items() if n.endswith('{end}')}},"),
            numpy=(
                "            moments = [",
                f"            if name.endswith('{end}'): continue\n            moments = [",
            ),
        )
        for name, description, end in (
            ("biases_not_trained", "the optimiser leaves the biases out", "bias"),
            ("scale_not_trained", "the optimiser leaves s out", "log_scale"),
        )
    ),
    fault(
        "gradients_accumulated",
        "gradients are added to those of the steps before",
        torch=("        self._model.flow.zero_grad(set_to_none=True)\n", ""),
    ),
    fault(
        "loss_after_update",
        "the loss of a step is computed after its update",
        torch=(
            "return loss.detach()",
            "return self._model.loss(self._pixels_to_x(self._images[order], noise)).detach()",
        ),
        tensorflow=(
            "[[i]], [loss])",
            "[[i]], [self._model.flow.loss(self._pixels_to_x(self._rows(order), noise))])",
        ),
        jax=(
            "return self._update(p, gradients, moments, row), loss",
            ("new = self._update(p, gradients, moments, row)\n        return new, self._model.flow.loss(new[0], x)"),
        ),
        numpy=(
            "gradients, schedule[i])",
            "gradients, schedule[i])\n            losses[i] = self._model._gradients(x)[0]",
        ),
    ),
    fault(
        "first_row_again",
        "every step of an epoch takes the order, the noise and the schedule of the first",
        torch=(
            "self._step(order[i], None if noise is None else noise[i], schedule[i])",
            "self._step(order[0], None if noise is None else noise[0], schedule[0])",
        ),
        tensorflow=("return i + 1, self._step(inputs, i, losses)", "return i + 1, self._step(inputs, 0 * i, losses)"),
        jax=("itemgetter(i)", "itemgetter(0)"),
        numpy=(
            "self._images[stream.order[i]], None if stream.noise is None else stream.noise[i])",
            "self._images[stream.order[0]], None if stream.noise is None else stream.noise[0])",
        ),
        modes={"tensorflow": "xla", "jax": "jit"},
    ),
    fault(
        "rounded_when_compiled",
        "the compiled loss and score take their input in float32",
        torch=("torch.compile(function,", "torch.compile(lambda x: function(x.float().to(x.dtype)),"),
        modes={"torch": "compile"},
    ),
    fault(
        "step_not_resumed",
        "Adam's bias corrections start anew where training is resumed",
        torch=(
            "self._model, self._pixels = model, pixels\n",
            "self._model, self._pixels, self._first = model, pixels, model._step\n",
            "step.fill_(self._model._step)",
            "step.fill_(self._model._step - self._first)",
        ),
    ),
    fault(
        "moments_not_resumed",
        "moments that are there already are not overwritten by those of a state",
        frameworks=(
            " in arrays.items()",
            " in ({} if self._step and held is not self._weights else arrays).items()",
        ),
        numpy=(
            "in arrays.items():\n            held",
            "in ({} if self._step and held is not self._weights else arrays).items():\n            held",
        ),
    ),
    *(
        fault(
            name,
            description,
            torch=("copy_(self._to_device(array))", f"copy_(self._to_device(array.astype('f4' if {where} else 'f8')))"),
            tensorflow=("assign(array)", f"assign(array.astype('f4').astype(array.dtype) if {where} else array)"),
            jax=(
                "(name, self._to_device(array))",
                f"(name, self._to_device(array.astype('f4').astype(array.dtype) if {where} else array))",
            ),
            numpy=("held[name][...] = array", f"held[name][...] = array.astype('f4') if {where} else array"),
        )
        for name, description, where in (
            ("moments_rounded", "moments are carried over in float32", "held is not self._weights"),
            ("weights_rounded", "weights are carried over in float32", "held is self._weights"),
        )
    ),
)

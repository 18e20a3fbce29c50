"""Faults to plant: the kind of mistake that is made when a model is carried from one framework to another.

Each is a change to the text of the backends' own files, so that this list reads as the mistake itself. A backend that
isn't named can't have the fault: where PyTorch's fused Adam does the sum, nobody can write it down wrongly.

This file has the flow, its precision and its samples; `bench.agreement.mutants_score`, the gradient by x; and
`bench.agreement.mutants_training`, what training adds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Mutation:
    """One fault.

    Attributes:
        name: short, with underscores.
        description: what the mutated backend does.
        changes: backend → (text that occurs exactly once in its file, what takes its place), all made together.
        needs_gpu: whether it changes nothing on a CPU.
        modes: backend → mode, where it is the code of one mode that has the fault; elsewhere the default's.
    """

    name: str
    description: str
    changes: Mapping[str, tuple[tuple[str, str], ...]]
    needs_gpu: bool = False
    modes: Mapping[str, str] = field(default_factory=dict)


def fault(
    name: str,
    description: str,
    *,
    frameworks: Sequence[str] = (),
    torch: Sequence[str] = (),
    tensorflow: Sequence[str] = (),
    jax: Sequence[str] = (),
    numpy: Sequence[str] = (),
    needs_gpu: bool = False,
    modes: Mapping[str, str] | None = None,
) -> Mutation:
    """A mutation, each backend's changes one after the other: old, new, old, new.

    `frameworks` is for those of the three that aren't named, where the text is the same.
    """
    texts = {"torch": torch or frameworks, "tensorflow": tensorflow or frameworks, "jax": jax or frameworks}
    changes = {
        backend: tuple(zip(given[::2], given[1::2], strict=True))
        for backend, given in (texts | {"numpy": numpy}).items()
        if given
    }
    return Mutation(name, description, changes, needs_gpu, modes or {})


def halves_swapped(arguments: str) -> tuple[str, ...]:
    """The half that is read and the half that is changed, the wrong way round, in encoder and decoder."""
    right = "read, changed = (b, a) if step.swap else (a, b)"
    wrong = "read, changed = (a, b) if step.swap else (b, a)"
    rests = [
        f"\n            m = self.network({arguments}, read)\n            changed = changed {sign} m" for sign in "-+"
    ]
    return right + rests[0], wrong + rests[0], right + rests[1], wrong + rests[1]


SUBTRACT_IN_ENCODER = 'changed - m if self.architecture.sign == "subtract" else changed + m'
ADD_IN_ENCODER = 'changed + m if self.architecture.sign == "subtract" else changed - m'
NUMPY_DECODER = 'self._network(k, x1)[-1])\n            if architecture.permute == "before":\n                '

FLOW = (
    fault(
        "kernel_transposed",
        "square kernels are taken for [out, in], or the other way round; one that isn't square would not fit",
        torch=('t.T if name.endswith(".kernel")', 't.T if name.endswith(".kernel") and len(set(t.shape)) > 1'),
        tensorflow=(
            "self.product(x, self.p[kernel_name(k, i)])",
            "tf.matmul(x, self.p[kernel_name(k, i)], transpose_b=0 < i < self.architecture.hidden_layers)",
        ),
        jax=(
            "self.product(x, p[kernel_name(k, i)])",
            "self.product(x, jnp.swapaxes(p[kernel_name(k, i)], 0, int(0 < i < self.architecture.hidden_layers)))",
        ),
        numpy=(
            "self._product(activations[-1], self._weights[kernel_name(k, i)])",
            "self._product(activations[-1], np.swapaxes(self._weights[kernel_name(k, i)], 0, int(0 < i < last)))",
        ),
    ),
    fault(
        "hidden_softplus",
        "hidden layers have a softplus for a ReLU",
        torch=("h = functional.relu(self", "h = functional.softplus(self"),
        tensorflow=("h = tf.nn.relu(", "h = tf.nn.softplus("),
        jax=("h = jax.nn.relu(", "h = jax.nn.softplus("),
        numpy=("np.maximum(h, 0)", "np.logaddexp(h, 0)"),
    ),
    fault(
        "last_relu_dropped",
        "the last layer is linear in every architecture",
        torch=('return functional.relu(h) if self.architecture.output == "relu" else h', "return h"),
        tensorflow=('return tf.nn.relu(h) if self.architecture.output == "relu" else h', "return h"),
        jax=('return jax.nn.relu(h) if self.architecture.output == "relu" else h', "return h"),
        numpy=(' and self.architecture.output == "linear"', "", ' or self.architecture.output == "relu"', ""),
    ),
    fault(
        "last_relu_kept",
        "the last layer has a ReLU in every architecture",
        frameworks=(' if self.architecture.output == "relu" else h', ""),
        numpy=(
            'i == last and self.architecture.output == "linear"',
            "False",
            'i < last or self.architecture.output == "relu"',
            "True",
        ),
    ),
    fault(
        "sign_flipped",
        "the encoder adds where it should subtract, and the decoder undoes that",
        frameworks=(SUBTRACT_IN_ENCODER, ADD_IN_ENCODER, ADD_IN_ENCODER, SUBTRACT_IN_ENCODER),
        numpy=('return -1 if self.architecture.sign == "subtract"', 'return -1 if self.architecture.sign == "add"'),
    ),
    fault(
        "decoder_sign_flipped",
        "the decoder does what the encoder does instead of undoing it",
        frameworks=(ADD_IN_ENCODER, SUBTRACT_IN_ENCODER),
        numpy=("x2 - self._sign * self._network", "x2 + self._sign * self._network"),
    ),
    fault(
        "halves_swapped",
        "couplings read the half that they should change, and change the half that they should read",
        torch=halves_swapped("k"),
        tensorflow=halves_swapped("k"),
        jax=halves_swapped("p, k"),
        numpy=(
            "return h[:, 0::2], h[:, 1::2]",
            "return h[:, 1::2], h[:, 0::2]",
            "np.stack([x1, x2], axis=2)",
            "np.stack([x2, x1], axis=2)",
        ),
    ),
    fault(
        "shuffle_not_inverted",
        "the decoder permutes as the encoder does instead of back",
        torch=("[s.ungroup for s in layout.steps]", "[s.regroup for s in layout.steps]"),
        tensorflow=("step.ungroup, axis=1)", "step.regroup, axis=1)"),
        jax=("axis=1), step.ungroup)", "axis=1), step.regroup)"),
        numpy=(
            f"{NUMPY_DECODER}h = h[:, np.argsort(self._permutation(k))]",
            f"{NUMPY_DECODER}h = h[:, self._permutation(k)]",
        ),
    ),
    fault(
        "tile_not_inverted",
        "the decoder's pixels stay in the order of the first coupling, or are put in order twice",
        frameworks=("self.layout.entry_inverse", "self.layout.entry"),
        torch=("index_select(1, self.entry_inverse)", "index_select(1, self.entry)"),
        numpy=("h[:, np.argsort(tile(architecture.dim))]", "h[:, tile(architecture.dim)]"),
    ),
    fault(
        "couplings_not_reversed",
        "the decoder goes through the couplings from first to last",
        frameworks=("in reversed(list(enumerate(self.layout.steps)))", "in enumerate(self.layout.steps)"),
        numpy=(
            'np.exp(-self._weights["log_scale"])\n        for k in reversed(range(architecture.couplings)):',
            'np.exp(-self._weights["log_scale"])\n        for k in range(architecture.couplings):',
        ),
    ),
    fault(
        "encoder_divides_by_scale",
        "the encoder multiplies by exp(−s), as if s were the logarithm of the prior's deviation",
        torch=("* torch.exp(self.log_scale)", "* torch.exp(-self.log_scale)"),
        tensorflow=('* tf.exp(self.p["log_scale"])', '* tf.exp(-self.p["log_scale"])'),
        jax=('* jnp.exp(p["log_scale"])', '* jnp.exp(-p["log_scale"])'),
        numpy=('h * np.exp(self._weights["log_scale"])', 'h * np.exp(-self._weights["log_scale"])'),
    ),
    fault(
        "decoder_without_scale",
        "the decoder forgets exp(−s)",
        torch=(" * torch.exp(-self.log_scale)", ""),
        tensorflow=(' * tf.exp(-self.p["log_scale"])', ""),
        jax=(' * jnp.exp(-p["log_scale"])[None, :]', ""),
        numpy=(' * np.exp(-self._weights["log_scale"])', ""),
    ),
    fault(
        "log_det_of_decoder",
        "encode gives log|det| of the way back, −Σ s",
        torch=("return z, self.log_scale.sum()", "return z, -self.log_scale.sum()"),
        tensorflow=(
            'tf.broadcast_to(tf.reduce_sum(self.p["log_scale"])',
            'tf.broadcast_to(-tf.reduce_sum(self.p["log_scale"])',
        ),
        jax=('jnp.broadcast_to(p["log_scale"]', 'jnp.broadcast_to(-p["log_scale"]'),
        numpy=('np.full(len(x), self._weights["log_scale"]', 'np.full(len(x), -self._weights["log_scale"]'),
    ),
    fault(
        "log_det_subtracted",
        "log p takes Σ s away instead of adding it",
        torch=(" + self.log_scale.sum()", " - self.log_scale.sum()"),
        tensorflow=(' + tf.reduce_sum(self.p["log_scale"])', ' - tf.reduce_sum(self.p["log_scale"])'),
        jax=(' + p["log_scale"].sum()', ' - p["log_scale"].sum()'),
        numpy=("self._log_prior(z) + log_det", "self._log_prior(z) - log_det"),
    ),
    fault(
        "log_det_missing",
        "log p leaves Σ s out",
        torch=(" + self.log_scale.sum()", ""),
        tensorflow=(' + tf.reduce_sum(self.p["log_scale"])', ""),
        jax=(' + p["log_scale"].sum()', ""),
        numpy=("self._log_prior(z) + log_det", "self._log_prior(z)"),
    ),
    fault(
        "prior_constant_dropped",
        "the normal density leaves log √2π out, as the article's own loss does",
        frameworks=(" + self.architecture.dim * LOG_TWO_PI", ""),
        numpy=(" + self.architecture.dim * LOG_TWO_PI", ""),
    ),
    fault(
        "prior_averaged",
        "log p is the mean over dimensions instead of the sum",
        torch=("(z * z).sum(dim=1)", "(z * z).mean(dim=1)", "(-z)).sum(dim=1)", "(-z)).mean(dim=1)"),
        tensorflow=(
            "tf.reduce_sum(z * z, axis=1)",
            "tf.reduce_mean(z * z, axis=1)",
            "tf.reduce_sum(tf.math.log_sigmoid(z)",
            "tf.reduce_mean(tf.math.log_sigmoid(z)",
        ),
        jax=("(z * z).sum(axis=1)", "(z * z).mean(axis=1)", "(-z)).sum(axis=1)", "(-z)).mean(axis=1)"),
        numpy=("(z * z).sum(axis=1)", "(z * z).mean(axis=1)", "-z)).sum(axis=1)", "-z)).mean(axis=1)"),
    ),
    fault(
        "one_softplus",
        "the logistic density has one of its two softplus terms",
        torch=(" + functional.logsigmoid(-z)", ""),
        tensorflow=(" + tf.math.log_sigmoid(-z)", ""),
        jax=(" + jax.nn.log_sigmoid(-z)", ""),
        numpy=(" + np.logaddexp(0, -z)", ""),
    ),
    fault(
        "loss_summed",
        "the loss is the sum over the batch instead of the mean",
        torch=("-self.log_prob(x).mean()", "-self.log_prob(x).sum()"),
        tensorflow=("-tf.reduce_mean(self.log_prob(x))", "-tf.reduce_sum(self.log_prob(x))"),
        jax=("-self.log_prob(p, x).mean()", "-self.log_prob(p, x).sum()"),
        numpy=(
            '"log_scale"].sum()).mean()',
            '"log_scale"].sum()).sum()',
            "self._slope(z) / len(x)",
            "self._slope(z)",
            "(by_z * z).sum(axis=0) - 1",
            "(by_z * z).sum(axis=0) - len(x)",
        ),
    ),
    fault(
        "gradient_stopped",
        "no gradient flows back through the input of m",
        torch=("read)\n            changed = changed - m", "read.detach())\n            changed = changed - m"),
        tensorflow=(
            "k, read)\n            changed = changed - m",
            "k, tf.stop_gradient(read))\n            changed = changed - m",
        ),
        jax=(
            "k, read)\n            changed = changed - m",
            "k, jax.lax.stop_gradient(read))\n            changed = changed - m",
        ),
        numpy=("by_x1 + by_input", "by_x1"),
    ),
)

PRECISION = (
    fault(
        "product_in_float32",
        "float64 is multiplied in float32",
        torch=(
            "return functional.linear(x, layer.weight, layer.bias)",
            "return functional.linear(x.float(), layer.weight.float(), layer.bias.float()).to(x.dtype)",
        ),
        tensorflow=(
            "return tf.matmul(a, b)",
            "return tf.cast(tf.matmul(tf.cast(a, tf.float32), tf.cast(b, tf.float32)), a.dtype)",
        ),
        jax=(
            "return jnp.matmul(a, b, precision=self.product_precision)",
            "return jnp.matmul(a.astype('f4'), b.astype('f4'), precision=self.product_precision).astype(a.dtype)",
        ),
        numpy=("return a @ b", "return (a.astype('f4') @ b.astype('f4')).astype(a.dtype)"),
    ),
    fault(
        "sum_in_float32",
        "float64 squares are summed over dimensions in float32",
        torch=("(z * z).sum(dim=1)", "(z * z).float().sum(dim=1).to(z.dtype)"),
        tensorflow=(
            "tf.reduce_sum(z * z, axis=1)",
            "tf.cast(tf.reduce_sum(tf.cast(z * z, tf.float32), axis=1), z.dtype)",
        ),
        jax=("(z * z).sum(axis=1)", "(z * z).astype('f4').sum(axis=1).astype(z.dtype)"),
        numpy=("(z * z).sum(axis=1)", "(z * z).sum(axis=1, dtype=np.float32).astype(z.dtype)"),
    ),
    fault(
        "bfloat16_left_on",
        "float32 is multiplied in bfloat16",
        frameworks=('precision == "bfloat16" else None', 'precision != "float64" else None'),
    ),
    fault(
        "tf32_left_on",
        "float32 is multiplied in TF32",
        torch=('"tf32" if self.precision == "tf32" else "ieee"', '"tf32"'),
        tensorflow=('tensor_float_32_execution(self.precision == "tf32")', "tensor_float_32_execution(True)"),
        jax=(
            "jax.lax.Precision.DEFAULT if lower else jax.lax.Precision.HIGHEST",
            "jax.lax.Precision.DEFAULT",
        ),
        needs_gpu=True,
    ),
)

SAMPLING = (
    fault(
        "temperature_ignored",
        "samples are drawn at temperature 1",
        torch=("latents * temperature", "latents"),
        tensorflow=("latents * temperature", "latents"),
        jax=("latents * temperature", "latents"),
        numpy=("dim)) * temperature)", "dim)))"),
    ),
    fault(
        "latents_always_normal",
        "latents are normal under the logistic density, too",
        torch=(
            '        if self.architecture.prior == "gaussian":\n            latents',
            "        if True:\n            latents",
        ),
        tensorflow=(
            '        if self.architecture.prior == "gaussian":\n            latents',
            "        if True:\n            latents",
        ),
        jax=(' if self.architecture.prior == "gaussian" else jax.random.logistic', ""),
        numpy=(' if self.architecture.prior == "gaussian" else generator.logistic', ""),
    ),
)

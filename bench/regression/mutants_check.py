"""Faults to plant that the regression check must find: the ones that an upgrade or an edit slips into a training run.

As in `bench.agreement.mutants`, each is a change to the text of the backends' own files. `SLOW` changes
no number: it is what the check of speed is for.
"""

from __future__ import annotations

from bench.agreement.mutants import fault

# x · (2¹³ + 1) − (x · (2¹³ + 1) − x) keeps the upper 11 of float32's 24 bits (Dekker, 1971), which is what TF32 has of
# a mantissa; its derivative does the same to the gradient. So TF32's products can be had where there is no such unit.
TORCH_ROUNDED, X_ROUNDED = (f"({t} * 8193 - ({t} * 8193 - {t}))" for t in ("layer.weight", "x"))

# What is computed again is of other pixels, lest a compiler find that it has it already.
TORCH_AGAIN = "        self._model.loss(self._pixels_to_x(self._images.index_select(0, order), noise) + 1).backward()\n"
TENSORFLOW_AGAIN = """\
        again = self._model.gradients_on_tape(self._pixels_to_x(self._rows(order), noise) + 1)[1]
        gradients = {name: g + 1e-30 * again[name] for name, g in gradients.items()}
"""
JAX_AGAIN = """\
        again = jax.grad(self._model.flow.loss)(p, x + 1)
        gradients = jax.tree.map(lambda g, other: g + 1e-30 * other, gradients, again)
"""
TORCH_THEN, TENSORFLOW_THEN, JAX_THEN = (
    "        self._model.flow.zero_grad(set_to_none=True)\n",
    "        self._update(gradients, row)\n",
    "        return self._update(p, gradients, moments, row), loss\n",
)

SLOW = fault(
    "twice_the_work",
    "each step computes a gradient twice, and uses one",
    torch=(TORCH_THEN, TORCH_AGAIN + TORCH_THEN),
    tensorflow=(TENSORFLOW_THEN, TENSORFLOW_AGAIN + TENSORFLOW_THEN),
    jax=(JAX_THEN, JAX_AGAIN + JAX_THEN),
)

WRONG = (
    fault(
        "rate_five_percent_off",
        "Adam's learning rate is 5 % too large",
        torch=("lr=optimiser.learning_rate,", "lr=1.05 * optimiser.learning_rate,"),
        tensorflow=("lr=lr * row[0] / root", "lr=1.05 * lr * row[0] / root"),
        jax=("p - lr * (m", "p - 1.05 * lr * (m"),
        numpy=("theta -= lr * (m", "theta -= 1.05 * lr * (m"),
    ),
    fault(
        "bias_dropped",
        "biases are not added; they start at zero, so that the first loss is right",
        torch=("layer.weight, layer.bias)", "layer.weight, 0 * layer.bias)"),
        tensorflow=("self.p[bias_name(k, i)])", "0 * self.p[bias_name(k, i)])"),
        jax=("+ p[bias_name(k, i)]", "+ 0 * p[bias_name(k, i)]"),
        numpy=("+ self._weights[bias_name(k, i)]", "+ 0 * self._weights[bias_name(k, i)]"),
    ),
    fault(
        "noise_wider",
        "the training noise is 10 % wider than the protocol says",
        frameworks=("x + self._pixels.noise * u", "x + 1.1 * self._pixels.noise * u"),
        numpy=("x + dtype.type(self._pixels.noise) * u", "x + dtype.type(1.1 * self._pixels.noise) * u"),
    ),
    fault(
        "products_as_tf32",
        "the operands of products are rounded to the 11 bits that TF32 has",
        torch=("functional.linear(x, layer.weight, layer", f"functional.linear({X_ROUNDED}, {TORCH_ROUNDED}, layer"),
        tensorflow=(
            "self.product(x, self.p[kernel_name(k, i)])",
            f"self.product({X_ROUNDED}, {TORCH_ROUNDED.replace('layer.weight', 'self.p[kernel_name(k, i)]')})",
        ),
        jax=(
            "self.product(x, p[kernel_name(k, i)])",
            f"self.product({X_ROUNDED}, {TORCH_ROUNDED.replace('layer.weight', 'p[kernel_name(k, i)]')})",
        ),
    ),
)

FAULTS = {mutation.name: mutation for mutation in (*WRONG, SLOW)}

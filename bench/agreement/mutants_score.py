"""Faults to plant in the gradient of log p by x, as `bench.agreement.mutants` has them."""

from __future__ import annotations

from bench.agreement.mutants import fault

SCORE = (
    fault(
        "score_of_loss",
        "the score is the gradient of −log p",
        torch=("return self.log_prob(x).sum()", "return -self.log_prob(x).sum()"),
        tensorflow=("return tf.reduce_sum(self.log_prob(x))", "return -tf.reduce_sum(self.log_prob(x))"),
        jax=("return self.log_prob(p, x).sum()", "return -self.log_prob(p, x).sum()"),
        numpy=("self._backward(tape, -self._slope(z))", "self._backward(tape, self._slope(z))"),
    ),
    fault(
        "score_averaged",
        "the score of each row is divided by the number of rows, as the gradient of their mean is",
        torch=("return self.log_prob(x).sum()", "return self.log_prob(x).mean()"),
        tensorflow=("return tf.reduce_sum(self.log_prob(x))", "return tf.reduce_mean(self.log_prob(x))"),
        jax=("return self.log_prob(p, x).sum()", "return self.log_prob(p, x).mean()"),
        numpy=("self._backward(tape, -self._slope(z))", "self._backward(tape, -self._slope(z) / len(x))"),
    ),
    fault(
        "score_of_prior_alone",
        "the score is that of z under the prior: what the flow makes of x is left out",
        torch=(
            "return self.log_prob(x).sum()",
            "return self.log_prior(x + (self.forward_halves(x) - x).detach()).sum()",
        ),
        tensorflow=(
            "return tf.reduce_sum(self.log_prob(x))",
            "return tf.reduce_sum(self.log_prior(x + tf.stop_gradient(self.forward_halves(x) - x)))",
        ),
        jax=(
            "return self.log_prob(p, x).sum()",
            "return self.log_prior(x + jax.lax.stop_gradient(self.forward_halves(p, x) - x)).sum()",
        ),
        numpy=("return self._backward(tape, -self._slope(z))[0]", "return -self._slope(z)"),
    ),
    fault(
        "score_not_put_back",
        "the score's pixels stay in the order of the first coupling",
        torch=("x.requires_grad_()), x)[0]", "x.requires_grad_()), x)[0].index_select(1, self.flow.entry)"),
        tensorflow=(
            "return tape.gradient(total, x)",
            "return tf.gather(tape.gradient(total, x), self.layout.entry, axis=1)",
        ),
        jax=(
            "score=with_weights(jax.jit(jax.grad(flow.total_log_prob, argnums=1))",
            "score=with_weights(lambda p, x: jax.grad(flow.total_log_prob, argnums=1)(p, x)[:, self.layout.entry]",
        ),
        numpy=("gradient = gradient[:, np.argsort(tile(architecture.dim))]", "pass"),
    ),
    fault(
        "coupling_gradient_reversed",
        "what flows back through m to its input has the wrong sign",
        torch=(
            "read)\n            changed = changed - m",
            "2 * read.detach() - read)\n            changed = changed - m",
        ),
        tensorflow=(
            "k, read)\n            changed = changed - m",
            "k, 2 * tf.stop_gradient(read) - read)\n            changed = changed - m",
        ),
        jax=(
            "k, read)\n            changed = changed - m",
            "k, 2 * jax.lax.stop_gradient(read) - read)\n            changed = changed - m",
        ),
        numpy=("by_x1 + by_input", "by_x1 - by_input"),
    ),
    fault(
        "score_in_float32",
        "float64 scores pass through float32",
        torch=("x.requires_grad_()), x)[0]", "x.requires_grad_()), x)[0].float().to(x.dtype)"),
        tensorflow=(
            "return tape.gradient(total, x)",
            "return tf.cast(tf.cast(tape.gradient(total, x), tf.float32), x.dtype)",
        ),
        jax=(
            "score=with_weights(jax.jit(jax.grad(flow.total_log_prob, argnums=1))",
            "score=with_weights(lambda p, x: jax.grad(flow.total_log_prob, 1)(p, x).astype('f4').astype(x.dtype)",
        ),
        numpy=(
            "return self._backward(tape, -self._slope(z))[0]",
            "return self._backward(tape, -self._slope(z))[0].astype('f4').astype(x.dtype)",
        ),
    ),
)

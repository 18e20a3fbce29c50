import dataclasses

import numpy as np
import pytest
from factories import SHUFFLED, SMALL, assert_same_bits, every_architecture, label, weights

from backends.layout import from_layout, make_layout, tile, to_layout

everywhere = pytest.mark.parametrize("architecture", every_architecture(), ids=label)


def is_permutation(index, size):
    return index.shape == (size,) and np.array_equal(np.sort(index), np.arange(size))


@everywhere
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_from_layout_gives_back_what_to_layout_took_bit_for_bit(architecture, dtype):
    given = {name: a for name, a in weights(architecture, dtype).items() if name in architecture.trainable_shapes}
    layout = make_layout(architecture, weights(architecture))
    assert_same_bits(from_layout(architecture, layout, to_layout(architecture, layout, given)), given)


@everywhere
def test_to_layout_gives_back_what_from_layout_took_bit_for_bit(architecture):
    given = {name: a for name, a in weights(architecture).items() if name in architecture.trainable_shapes}
    layout = make_layout(architecture, weights(architecture))
    assert_same_bits(to_layout(architecture, layout, from_layout(architecture, layout, given)), given)


@everywhere
def test_every_index_of_a_layout_is_a_permutation(architecture):
    layout = make_layout(architecture, weights(architecture))
    assert is_permutation(layout.entry, 12)
    assert is_permutation(layout.exit, 12)
    for step in layout.steps:
        assert is_permutation(step.rows, 6)
        assert is_permutation(step.columns, 6)
        assert step.regroup is None or is_permutation(step.regroup, 12)


@everywhere
def test_the_inverses_of_a_layout_undo_it(architecture):
    layout = make_layout(architecture, weights(architecture))
    x = np.arange(100, 112)
    assert np.array_equal(x[layout.entry][layout.entry_inverse], x)
    assert np.array_equal(x[layout.exit][layout.exit_inverse], x)
    for step in layout.steps:
        assert step.regroup is None or np.array_equal(x[step.regroup][step.ungroup], x)


@pytest.mark.parametrize("architecture", [a for a in every_architecture() if a.permutation != "shuffle"], ids=label)
def test_only_a_shuffle_moves_data_between_couplings(architecture):
    assert all(step.regroup is None for step in make_layout(architecture, {}).steps)


def test_a_shuffle_moves_data_at_every_coupling_but_the_first():
    steps = make_layout(SHUFFLED, weights(SHUFFLED)).steps
    assert [step.regroup is None for step in steps] == [True, False, False]


def test_a_reversal_swaps_the_halves_at_every_other_coupling():
    assert [step.swap for step in make_layout(SMALL, {}).steps] == [False, True, False]


def test_without_a_permutation_the_same_half_is_read_each_time():
    assert not any(step.swap for step in make_layout(dataclasses.replace(SMALL, permutation="none"), {}).steps)


def test_tile_puts_even_indices_first():
    assert tile(6).tolist() == [0, 2, 4, 1, 3, 5]


def test_arrays_in_a_layout_are_contiguous():
    given = {name: array.T.copy().T for name, array in weights(SMALL).items()}
    arrays = to_layout(SMALL, make_layout(SMALL, given), given)
    assert all(array.flags.c_contiguous for array in arrays.values())

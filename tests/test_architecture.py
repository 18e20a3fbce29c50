import dataclasses

import pytest
from factories import SMALL, every_architecture, options

from backends import Architecture, ArchitectureError
from backends.architecture import flops

SIZES = ["dim", "couplings", "hidden_layers", "hidden_units"]


def test_article_has_the_fields_of_the_table():
    assert Architecture.article().to_dict() == {
        "dim": 784,
        "couplings": 4,
        "hidden_layers": 5,
        "hidden_units": 1000,
        "reorder": "none",
        "permutation": "reverse",
        "permute": "before",
        "split": "interleaved",
        "sign": "subtract",
        "output": "relu",
        "prior": "gaussian",
    }


def test_paper_has_the_fields_of_the_table():
    assert Architecture.paper().to_dict() == {
        "dim": 784,
        "couplings": 4,
        "hidden_layers": 5,
        "hidden_units": 1000,
        "reorder": "tile",
        "permutation": "reverse",
        "permute": "after",
        "split": "halves",
        "sign": "add",
        "output": "linear",
        "prior": "logistic",
    }


def test_there_are_192_combinations_of_options():
    assert len(set(every_architecture())) == 192


# What is refused


@pytest.mark.parametrize("value", [0, -2, True, 4.0, "4", None])
@pytest.mark.parametrize("field", SIZES)
def test_a_size_that_is_not_a_positive_integer_is_refused_by_name(field, value):
    with pytest.raises(ArchitectureError, match=rf"{field} is .*; expected a positive integer"):
        dataclasses.replace(SMALL, **{field: value})


def test_an_odd_dim_is_refused():
    with pytest.raises(ArchitectureError, match="dim is 13; expected an even number"):
        dataclasses.replace(SMALL, dim=13)


@pytest.mark.parametrize("value", ["diagonal", "", 1, None, ["relu"]])
@pytest.mark.parametrize("field", list(options()))
def test_an_unknown_option_is_refused_by_name_with_what_is_allowed(field, value):
    with pytest.raises(ArchitectureError, match=rf"{field} is .*; expected one of .*{options()[field][0]}"):
        dataclasses.replace(SMALL, **{field: value})


def test_a_field_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.dim = 14


# As a mapping


@pytest.mark.parametrize("architecture", [Architecture.article(), Architecture.paper(), SMALL])
def test_from_dict_is_the_inverse_of_to_dict(architecture):
    assert Architecture.from_dict(architecture.to_dict()) == architecture


def test_from_dict_refuses_an_unknown_field():
    with pytest.raises(ArchitectureError, match="unknown field 'depth'"):
        Architecture.from_dict(SMALL.to_dict() | {"depth": 3})


@pytest.mark.parametrize("field", SIZES)
def test_from_dict_names_a_missing_size(field):
    entries = SMALL.to_dict()
    del entries[field]
    with pytest.raises(ArchitectureError, match=f"{field} is missing"):
        Architecture.from_dict(entries)


# Names, shapes, counts


def test_parameters_have_canonical_names_and_shapes_in_canonical_order():
    architecture = Architecture(dim=6, couplings=2, hidden_layers=1, hidden_units=5, permutation="shuffle")
    assert list(architecture.parameter_shapes.items()) == [
        ("coupling.0.dense.0.kernel", (3, 5)),
        ("coupling.0.dense.0.bias", (5,)),
        ("coupling.0.dense.1.kernel", (5, 3)),
        ("coupling.0.dense.1.bias", (3,)),
        ("coupling.1.dense.0.kernel", (3, 5)),
        ("coupling.1.dense.0.bias", (5,)),
        ("coupling.1.dense.1.kernel", (5, 3)),
        ("coupling.1.dense.1.bias", (3,)),
        ("log_scale", (6,)),
        ("coupling.0.permutation", (6,)),
        ("coupling.1.permutation", (6,)),
    ]


@pytest.mark.parametrize("permutation", ["reverse", "none"])
def test_only_a_shuffle_stores_permutations(permutation):
    architecture = dataclasses.replace(SMALL, permutation=permutation)
    assert architecture.parameter_shapes == architecture.trainable_shapes


@pytest.mark.parametrize("architecture", [Architecture.article(), Architecture.paper()])
def test_the_full_size_has_19158352_trainable_numbers(architecture):
    assert architecture.trainable_count == 19_158_352


def test_permutations_are_not_counted_as_trainable():
    assert dataclasses.replace(SMALL, permutation="shuffle").trainable_count == SMALL.trainable_count


# Work


def test_a_training_step_at_full_size_takes_the_flops_worked_out_by_hand():
    # Kernels of one coupling: 392·1000 + 4 · 1000·1000 + 1000·392 = 4,784,000. Forward: 2 · 128 · 4 · 4,784,000 =
    # 4,898,816,000. Thrice that, without the first layer's gradient by its input, 2 · 128 · 392·1000 = 100,352,000.
    assert flops(Architecture.article().training_products(128)) == 3 * 4_898_816_000 - 100_352_000 == 14_596_096_000


def test_a_pass_at_full_size_takes_the_flops_worked_out_by_hand():
    assert flops(Architecture.article().forward_products(128)) == 4_898_816_000


def test_training_products_are_those_of_the_chain_rule():
    architecture = Architecture(dim=6, couplings=1, hidden_layers=1, hidden_units=5)
    assert sorted(architecture.training_products(8)) == sorted(
        [
            *[(8, 3, 5), (8, 5, 3)],  # forward
            *[(3, 8, 5), (5, 8, 3)],  # each kernel's gradient: inputsᵀ × gradient
            *[(8, 3, 5)],  # the second layer's gradient by its input: gradient × kernelᵀ
        ]
    )


def test_bytes_of_a_training_step_count_each_move_of_the_parameters():
    count = SMALL.trainable_count  # 3 moves for the products, 3 + 2 · moments for the optimiser
    assert SMALL.training_bytes(4) == 10 * 4 * count
    assert SMALL.training_bytes(8, moments=1) == 8 * 8 * count


def test_bytes_of_a_pass_count_parameters_input_and_output_once():
    assert SMALL.forward_bytes(5, 4) == 4 * (SMALL.trainable_count + 5 * 12 + 5 * 12)

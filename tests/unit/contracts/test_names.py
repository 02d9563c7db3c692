import pytest

from contracts.names import is_image_reference, is_model_id, is_task_id


@pytest.mark.parametrize("text", ["echo", "a.b-c_D9", "x" * 128, "..."])
def test_usable_model_ids(text):
    assert is_model_id(text)


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a b", "a/b", "a%2fb", "a\x00b", "x" * 129, "a\n", "ä", "a:b"]
)
def test_unusable_model_ids(text):
    assert not is_model_id(text)


@pytest.mark.parametrize("text", ["Some Model", "group:model 1", "a"])
def test_the_1x_interface_allows_spaces_and_colons_inside(text):
    assert is_model_id(text, classic=True)


@pytest.mark.parametrize("text", [" a", "a ", "a/b", "", "..", "a\tb"])
def test_even_the_1x_interface_has_limits(text):
    assert not is_model_id(text, classic=True)


@pytest.mark.parametrize(
    "text",
    [
        "echo",
        "echo:1.2",
        "group/model:latest",
        "localhost:5000/a/b:t",
        "registry.example.org/a@sha256:" + "0" * 64,
        "ghcr.io/x/y_z/w--v:T_1",
    ],
)
def test_image_references(text):
    assert is_image_reference(text)


@pytest.mark.parametrize(
    "text", ["", "UPPER:1", "a:", "a b", "-a", "a@sha256:12", "a" * 256, "a:b:c", "http://a/b", "a\n"]
)
def test_what_is_no_image_reference(text):
    assert not is_image_reference(text)


def test_task_ids_are_32_hexadecimal_digits():
    assert is_task_id("0" * 32)
    assert not any(
        is_task_id(text) for text in ["", "0" * 31, "0" * 33, "G" * 32, "0" * 31 + "\n", "../" + "0" * 29]
    )
